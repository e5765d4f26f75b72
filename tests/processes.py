"""`inbox` as a process of its own: started, asked, stopped and killed as its users and their machines do it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from zips import archive

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
TESTS = Path(__file__).parent
DEADLINE_SECONDS = 60.0

QUICK = {
    "SETTLE_SECONDS": "0.2",
    "SCAN_INTERVAL_SECONDS": "0.5",
    "LEASE_SECONDS": "3",
    "RETRY_BASE_DELAY_SECONDS": "0.1",
    "WORKER_PROCESSES": "2",
    "UNPACKER_PROCESSES": "1",
    "SHUTDOWN_GRACE_SECONDS": "10",
    "DAMAGED_GRACE_SECONDS": "0.5",
    "HTTP_PORT": "0",
}


def wait_for(look: Callable[[], T | None], what: str = "it", seconds: float = DEADLINE_SECONDS) -> T:
    """Return what `look` finds as soon as it finds something; fail at the deadline."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds:g} s")


class Storage:
    """The shared volume of a test, and the settings that every command on it gets."""

    def __init__(self, base: Path, url: str = "", **settings: object):
        self.base = base
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG") if name in os.environ
        }
        kept |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
        self.calls_path = base.parent / "calls.txt"
        self.environment = {
            **kept,
            **QUICK,
            "STORAGE_BASE_PATH": str(base),
            "DATABASE_URL": url,
            "PYTHONPATH": f"{ROOT}:{TESTS}",
            "TEST_CALLS": str(self.calls_path),
            **{name: str(value) for name, value in settings.items()},
        }
        (base / "uploads").mkdir(parents=True, exist_ok=True)

    def drop(self, name: str, members) -> Path:
        """Put an archive into the uploads the way a careful client does."""
        path = self.base / "uploads" / name
        hidden = path.with_name(f".{name}.part")
        hidden.write_bytes(members if isinstance(members, bytes) else archive(members))
        hidden.rename(path)
        return path

    def run(
        self, *arguments: str, seconds: float = DEADLINE_SECONDS, **settings: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "inbox", *arguments],
            env=self.environment | {name: str(value) for name, value in settings.items()},
            cwd=self.base.parent,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextmanager
    def service(self, *arguments: str, until: str = "inbox serves", within: Sequence[str] = (), **settings: object):
        """
        Run `inbox run` for the block, from its line `until` on; whatever is left of it is killed at the end.

        `within` is a command that ends by executing the one behind it, such as `unshare`.
        """
        output = self.base.parent / "output.log"
        with output.open("ab") as sink:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "inbox", "run", *arguments],
                env=self.environment | {name: str(value) for name, value in settings.items()},
                cwd=self.base.parent,
                stdout=sink,
                stderr=sink,
                process_group=0,
            )
        service = Service(process, output)
        try:
            service.wait_until(until)
            yield service
        finally:
            service.kill()

    def receipts(self) -> dict[str, dict]:
        found = {}
        for path in (self.base / "receipts").glob("*.json"):
            with suppress(FileNotFoundError):
                found[path.name] = json.loads(path.read_text())
        return found

    def receipt(self, drop: str) -> dict | None:
        """Return the newest receipt of a drop that is in a final state."""
        return next((told for name, told in self.receipts().items() if name.startswith(f"{drop}.")), None)

    def wait_for_receipt(self, drop: str) -> dict:
        return wait_for(lambda: self.receipt(drop), f"the receipt of {drop}: {self.tail()}")

    def calls(self) -> list[tuple[str, str, int]]:
        """Return every call of the test's handler: doc_id, member path, attempt."""
        if not self.calls_path.exists():
            return []
        lines = (line.rsplit(" ", 1) for line in self.calls_path.read_text().splitlines())
        return [(*head.split(" ", 1), int(attempt)) for head, attempt in lines]

    def tail(self) -> str:
        path = self.base.parent / "output.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""


class Service:
    """A running `inbox run`."""

    def __init__(self, process: subprocess.Popen, output: Path):
        self.process = process
        self.output = output
        self._begins = output.stat().st_size if output.exists() else 0

    def lines(self) -> list[dict]:
        """Return the log lines since the start."""
        text = self.output.read_text(errors="replace")[self._begins :]
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[dict]:
        return [line for line in self.lines() if line.get("event") == name]

    def wait_until(self, words: str) -> None:
        """Wait for a log line that begins so; the process must not have ended."""

        def said():
            assert self.process.poll() is None, self.output.read_text()[-3000:]
            return [line for line in self.lines() if line["message"].startswith(words)]

        wait_for(said, words)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def workers(self) -> list[int]:
        """Return the process ids of the worker processes."""
        return [pid for pid, name in self.children().items() if name != "inbox-unpacker"]

    def unpackers(self) -> list[int]:
        """Return the process ids of the unpacker processes."""
        return [pid for pid, name in self.children().items() if name == "inbox-unpacker"]

    def children(self) -> dict[int, str]:
        """Return the processes that the service has started, by their ids, with what they are shown as."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, rest = path.read_text().partition("(")[2].rpartition(")")
                fields = rest.split()
                command = path.with_name("cmdline").read_bytes()
                if int(fields[1]) == self.process.pid and b"spawn_main" in command:
                    found[int(path.parent.name)] = name
        return found

    def kill(self) -> None:
        """SIGKILL all of it at once, as a power switch or the end of a container would."""
        for group in (self.process.pid, *self.children()):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)
