"""Volumes of a test's own: in memory, on an image that loses its power, and over FUSE with errors to be switched on."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import TESTS, wait_for

SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN."""
KEEPS_LOG, LOSES_LOG = 1, 2


def run(*command: object) -> None:
    """Run a command that needs rights or kernel parts which not every machine gives."""
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def unmount(point: Path) -> None:
    """Take the uppermost mount off, also one that is in use."""
    subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)


@contextmanager
def in_memory(point: Path, **options: object) -> Iterator[Path]:
    """Mount a tmpfs with options such as `size="64m"` and `nr_inodes=100`."""
    point.mkdir(exist_ok=True)
    told = ",".join(f"{name}={value}" for name, value in options.items()) or "size=50%"
    run("mount", "-t", "tmpfs", "-o", told, "tmpfs", point)
    try:
        yield point
    finally:
        unmount(point)


class Image:
    """A file system on an image file: mounted, robbed of its power, and mounted again."""

    def __init__(self, folder: Path, kind: str):
        self.file = folder / f"{kind}.img"
        self.point = folder / "shared"
        self.kind = kind
        self.point.mkdir(exist_ok=True)
        with self.file.open("wb") as file:
            file.truncate(320 * 1024**2)  # the least that mkfs.xfs takes
        run(f"mkfs.{kind}", "-q", self.file)

    def mount(self) -> None:
        run("mount", "-o", "loop", self.file, self.point)

    def cut_power(self, how: int = LOSES_LOG) -> None:
        """From here on nothing reaches the image. What no fsync had made durable is lost."""
        handle = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, how.to_bytes(4, sys.byteorder))
        finally:
            os.close(handle)

    def unmount(self) -> None:
        """Take the mount off for good, so that the next one reads the image itself."""

        def is_off():
            return subprocess.run(["umount", str(self.point)], capture_output=True, check=False).returncode in {0, 32}

        wait_for(lambda: is_off() and not os.path.ismount(self.point), "the unmounting")


@contextmanager
def image(folder: Path, kind: str = "ext4") -> Iterator[Image]:
    made = Image(folder, kind)
    made.mount()
    try:
        yield made
    finally:
        if os.path.ismount(made.point):
            unmount(made.point)


class Faulty:
    """A folder mounted over FUSE, and the control file that says what goes wrong in it."""

    def __init__(self, point: Path, control: Path):
        self.point = point
        self._control = control

    def fail(self, *rules: str) -> None:
        """Let each rule `operation errno part-of-the-path` hold from now on, alone; with `hang` no answer comes."""
        beside = self._control.with_suffix(".new")
        beside.write_text("".join(f"{rule}\n" for rule in rules))
        beside.replace(self._control)

    def met(self) -> list[str]:
        """Return the operations that failed by a rule."""
        return self._control.with_suffix(".met").read_text().splitlines()


@contextmanager
def faulty(folder: Path) -> Iterator[Faulty]:
    """Mount `folder/disk` on `folder/shared`."""
    pytest.importorskip("mfusepy", reason="mfusepy finds no libfuse")
    disk, point, control = folder / "disk", folder / "shared", folder / "faults"
    for one in (disk, point):
        one.mkdir(exist_ok=True)
    control.write_text("")
    control.with_suffix(".met").write_text("")
    program = [sys.executable, str(TESTS / "faults" / "faulty_filesystem.py"), str(disk), str(point), str(control)]
    with (folder / "fuse.log").open("wb") as log:
        process = subprocess.Popen(program, stdout=log, stderr=log)
    try:
        ends_at = time.monotonic() + 20
        while not os.path.ismount(point):
            if process.poll() is not None or time.monotonic() > ends_at:
                pytest.skip(f"no FUSE mount: {(folder / 'fuse.log').read_text()[-300:]}")
            time.sleep(0.02)
        yield Faulty(point, control)
    finally:
        control.write_text("")
        unmount(point)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
