"""What the tests of clients share: an archive worth delivering, and a witness of what the service does with it."""

import errno
import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from processes import DEADLINE_SECONDS, Service, Storage, wait_for
from zips import STORED, Member, archive

QUIET_SECONDS = 0.2
PAUSE_SECONDS = QUIET_SECONDS + 0.6
"""How long a client pauses where the service says nothing about what it has seen so far."""
DAMAGED_GRACE_SECONDS = 0.5
"""Less than that pause: no client of these tests owes it to the grace that it is not refused."""


@dataclass(frozen=True)
class Payload:
    """An archive to be delivered, and the content of each of its members."""

    data: bytes
    contents: dict[str, bytes]

    @property
    def batch_id(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        return {path: hashlib.sha256(content).hexdigest() for path, content in self.contents.items()}

    def write_to(self, path: Path) -> Path:
        path.write_bytes(self.data)
        return path

    def pieces(self) -> list[bytes]:
        """Return the archive in pieces that end where a prefix is most like a whole archive, and elsewhere."""
        size, index, end = len(self.data), self.data.rfind(b"PK\x01\x02"), self.data.rfind(b"PK\x05\x06")
        cuts = (0, 3, 4096, size // 2, index, index + 20, end, end + 4, size - 1, size)
        return [self.data[start:end] for start, end in pairwise(cuts)]


def payload(seed: object, *, members: int = 20, member_bytes: int = 150_000, comment: bytes = b"") -> Payload:
    """Return an archive of a few MB that no other seed gives; its content does not compress."""
    chance = random.Random(str(seed))
    contents = {f"d{n % 3}/{n}.bin": chance.randbytes(member_bytes) for n in range(members)}
    data = archive([Member(path, content, STORED) for path, content in contents.items()], comment=comment)
    return Payload(data, contents)


class Witness:
    """Looks at everything from which anybody could learn what the service did with a drop."""

    def __init__(self, shared: Storage, service: Service):
        self.shared = shared
        self.service = service
        self.uploads = shared.base / "uploads"

    def said(self, drop: str, event: str) -> list[dict]:
        return [line for line in self.service.events(event) if line["drop"] == drop]

    def pause(self, drop: str, heard: int) -> None:
        """
        Wait, as a client that pauses, for longer than the quiet time.

        That is until the service has said more than `heard` times that this drop is not whole, or, where it has nothing
        to say, for `PAUSE_SECONDS`.
        """
        ends_at = time.monotonic() + PAUSE_SECONDS
        wait_for(lambda: len(self.said(drop, "DropWaits")) > heard or time.monotonic() > ends_at, "the pause")

    def deliver(self, drop: str, pieces, write) -> None:
        """Hand the pieces to `write` one after the other, each after a pause of its own."""
        for number, piece in enumerate(pieces):
            heard = len(self.said(drop, "DropWaits"))
            write(piece)
            if number + 1 < len(pieces):
                self.pause(drop, heard)

    def wait_until_left_waiting(self, drop: str) -> None:
        wait_for(lambda: self.said(drop, "DropWaits"), f"the word that {drop} waits")

    def wait_until_some_is_there(self, pattern: str, one: Payload, size_bytes: int = 400_000) -> Path:
        """Wait until a file in the uploads has so many of the archive's first bytes, and return its path."""

        def look():
            for path in self.uploads.glob(pattern):
                with suppress(FileNotFoundError), path.open("rb") as file:
                    if file.read(size_bytes) == one.data[:size_bytes]:
                        return path
            return None

        return wait_for(look, f"the beginning of {pattern}")

    def wait_for_a_later_drop(self, drop: str) -> None:
        """Drop something else and wait until it is done: by then the service has looked at what was there before."""
        self.shared.drop(drop, [f"{drop}.txt"])
        self.shared.wait_for_receipt(drop)

    def account(self, drop: str, times: int = 1) -> dict:
        """Wait until so many archives of this name are done, and tell what became of them and what was said by then."""
        receipts = wait_for(lambda: self.receipts_of(drop, times), f"the end of {drop}: {self.shared.tail()}")
        wait_for(lambda: not (self.uploads / drop).exists(), f"the leaving of {drop}")
        waited = [line["reason_code"] for line in self.said(drop, "DropWaits")]
        print(f"{drop}: {len(waited)} times not whole: {', '.join(dict.fromkeys(waited)) or 'never'}")
        return self.judgements(drop) | {
            "states": [receipt["state"] for receipt in receipts],
            "sha256": {receipt["batch_id"]: self.published(receipt["batch_id"]) for receipt in receipts},
        }

    def judgements(self, drop: str) -> dict:
        """Tell how often the drop was taken, with its size, and whatever was said against it."""
        lines = [line for line in self.service.lines() if line.get("drop") == drop]
        return {
            "taken": list(
                dict.fromkeys(  # a client may set the times while it is read: then it is given back and taken again
                    (line["batch_id"], line["size_bytes"]) for line in lines if line["event"] == "BatchClaimed"
                )
            ),
            "registered": [line["batch_id"] for line in lines if line["event"] == "BatchRegistered"],
            "complaints": [
                line["message"] for line in lines if line["level"] != "INFO" and line["event"] != "DropWaits"
            ],
            "quarantined": sorted(path.name for path in (self.shared.base / "quarantine").glob(f"*{Path(drop).stem}*")),
        }

    def published(self, batch_id: str | None) -> dict[str, str]:
        folder = self.shared.base / "extracted" / str(batch_id)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def receipts_of(self, drop: str, times: int) -> list[dict]:
        """Return the receipts of a drop, when there are so many or more."""
        found = [told for name, told in self.shared.receipts().items() if name.startswith(f"{drop}.")]
        return found if len(found) >= times else []


def taken_once(*archives: Payload) -> dict:
    """Return the account of archives that were taken once each, when they were whole, and not complained about."""
    return {
        "taken": [(one.batch_id, len(one.data)) for one in archives],
        "registered": [one.batch_id for one in archives],
        "complaints": [],
        "quarantined": [],
        "states": ["completed" for _ in archives],
        "sha256": {one.batch_id: one.digests for one in archives},
    }


NOT_TAKEN = {"taken": [], "registered": [], "complaints": [], "quarantined": []}


def need_word_of_the_kernel(folder: Path) -> None:
    """Skip the test where the kernel does not say that somebody has a file open for writing: see docs/clients.md."""
    path = folder / ".open"
    with path.open("wb"), path.open("rb") as reader:
        try:
            fcntl.fcntl(reader.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
    pytest.skip("the kernel does not tell here who has a file open for writing")


def need(*programs: str) -> None:
    """Skip the test, with the reason, unless these programs are installed."""
    missing = [program for program in programs if find_program(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def find_program(name: str) -> str | None:
    """Return the path of a program; daemons lie where a normal user's PATH does not lead."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def run(*command: object, **options) -> None:
    """Run a client to its end; it has to succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        **options,
    )
    assert 0 == done.returncode, done.stderr + done.stdout


@contextmanager
def running(*command: object, log: Path | None = None, **options):
    """Run a program for the block, in a process group of its own that is killed at its end."""
    with (log or Path(os.devnull)).open("ab") as sink:
        options = {"stdin": subprocess.DEVNULL, "stdout": sink, "stderr": sink} | options
        process = subprocess.Popen([str(word) for word in command], process_group=0, **options)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Send a client and its children a signal, and wait for its end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    process.wait(DEADLINE_SECONDS)


def finish(process: subprocess.Popen) -> None:
    assert 0 == process.wait(DEADLINE_SECONDS)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_served(port: int, process: subprocess.Popen, log: Path) -> None:
    def answers():
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    wait_for(answers, f"the server on port {port}")
