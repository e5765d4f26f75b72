"""The replicas: real `inbox run` processes on one volume and one database, started, harmed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledger import Ledger
from postgres import end_with_parent
from processes import Storage

HERE: Final = Path(__file__).parent
MAX_ATTEMPTS: Final = 6
LEASE_SECONDS: Final = 5.0
MISCONFIGURED: Final = 2
"""The exit status of a service that finds no volume, or none to write on, when it starts."""
SETTINGS: Final = {
    "HANDLERS": "torture_handlers",
    "PYTHONPATH": f"{HERE.parent.parent}:{HERE.parent}:{HERE}",
    "SETTLE_SECONDS": 0.3,
    "SCAN_INTERVAL_SECONDS": 0.5,
    "LEASE_SECONDS": LEASE_SECONDS,
    "RETRY_BASE_DELAY_SECONDS": 0.05,
    "MAX_RETRY_ATTEMPTS": MAX_ATTEMPTS,
    "FILE_PROCESSING_TIMEOUT": 4,
    "BATCH_PROCESSING_TIMEOUT": 86_400,
    "SHUTDOWN_GRACE_SECONDS": 6,
    "DAMAGED_GRACE_SECONDS": 4,
    "DATABASE_TIMEOUT": 4,
    "HTTP_PORT": 0,
}


class Replica:
    """One seat of the fleet, and whoever sits there. `name` changes with every start: `r1.1`, `r1.2` and so on."""

    def __init__(self, number: int, environment: Mapping[str, str], folder: Path) -> None:
        self.number = number
        self.starts = 0
        self.is_harmed = False
        """A fault has it in hand: its end is no surprise, and who harms it starts it again."""
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = dict(environment)
        self._folder = folder
        self._output = folder / f"r{number}.out"
        self._begins = 0

    @property
    def name(self) -> str:
        return f"r{self.number}.{self.starts}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.starts += 1
        self._begins = self._output.stat().st_size if self._output.exists() else 0
        with (
            self._output.open("ab") as output,
            (self._folder / f"r{self.number}.err").open("ab") as errors,
        ):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inbox", "run"],
                env=self._environment | {"TORTURE_SERVICE": self.name},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                process_group=0,
                preexec_fn=end_with_parent(os.getpid()),  # noqa: PLW1509 - nothing but two system calls
            )

    def has_begun(self) -> bool:
        """Say whether it has said that it serves: before that, a signal ends any process at once."""
        with self._output.open("rb") as lines:
            lines.seek(self._begins)
            return any(b'"ServiceStarted"' in line for line in lines)

    def send(self, number: signal.Signals, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def main(self) -> list[int]:
        return [self.process.pid] if self.process is not None and self.is_running else []

    def everybody(self) -> list[int]:
        """Return the main process and all below it; the main one first, so that it cannot answer for the others."""
        return [*self.main(), *(below(self.process.pid) if self.process is not None else ())]

    def children(self) -> list[int]:
        return below(self.process.pid) if self.process is not None and self.is_running else []


class Fleet:
    """All replicas, and the record of who ended without having been harmed."""

    def __init__(self, count: int, storage: Path, url: str, folder: Path, ledger: Ledger, **settings: object) -> None:
        journal = folder / "journal"
        journal.touch()
        chosen = SETTINGS | {"TORTURE_JOURNAL": journal} | settings
        environment = Storage(storage, url, **chosen).environment
        self.replicas = [Replica(number, environment, folder) for number in range(1, count + 1)]
        self.died: list[str] = []
        self.killed_by_handlers = 0
        self.refused_to_start = 0
        self._ledger = ledger

    def start(self) -> None:
        for replica in self.replicas:
            replica.start()

    def look_after(self) -> None:
        """Start again whoever ended by himself: killed by a handler, or by a fault of his own."""
        for replica in self.replicas:
            if replica.is_harmed or replica.is_running:
                continue
            code = replica.process.returncode if replica.process else None
            self._ledger.note_victims([replica.name], f"ended by itself with {code}")
            if code == -signal.SIGKILL:
                self.killed_by_handlers += 1
            elif code == MISCONFIGURED and not replica.has_begun():
                self.refused_to_start += 1
            else:
                self.died.append(f"{replica.name} ended with {code}")
            replica.start()

    def end(self, seconds: float) -> None:
        """End everybody in good order; whoever does not end well is noted."""
        for replica in self.replicas:
            replica.send(signal.SIGTERM, replica.main())
        for replica in self.replicas:
            if replica.process is None:
                continue
            try:
                code = replica.process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                replica.send(signal.SIGKILL, replica.everybody())
            if code != 0:
                self.died.append(f"{replica.name} ended with {code} when it was asked to")

    def kill(self) -> None:
        for replica in self.replicas:
            replica.send(signal.SIGCONT, replica.everybody())
            replica.send(signal.SIGKILL, replica.everybody())


def below(pid: int) -> list[int]:
    """Return the process ids of all descendants, in no order that matters."""
    found = []
    for child in _children(pid):
        found += [child, *below(child)]
    return found


def _children(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            yield from map(int, path.read_text().split())
