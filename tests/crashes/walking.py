"""
A walk over every point at which a crash can be told from no crash: the calls that change the volume or the database.

Each point is one run of `inbox run --once` over the same drops (one that completes with a skipped member, the same
content again, and one that is refused), ended by SIGKILL just before its N-th such call. Then the service is started
again, and everything it should have come to is held against what is there.

    python tests/crashes/walking.py --database sqlite --every
    python tests/crashes/walking.py --database postgresql --kind one --points 40
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from databases import connected, migrate
from forking import Forking
from processes import Storage, wait_for
from zips import FOLDER, Member, archive

from inbox.database.models import FileExtraction, Lease, ProcessingJob, RunSummary

SOURCE: Final = Path(__file__).with_name("crash_point.c")
_HEAD: Final = struct.Struct("=4i")
_PROCESSES: Final = 256
_WHAT_AT: Final = _HEAD.size + 4 * _PROCESSES
_STATE_BYTES: Final = _WHAT_AT + 512
KINDS: Final = {"all": 1, "one": 0}
"""Who dies: everything at once, as at the end of a container, or the process alone that makes the call."""

CONTENTS: Final = {"1.txt": b"one", "folder/2.txt": b"two" * 9000}
FINGERPRINTS: Final = {path: hashlib.sha256(data).hexdigest()[:8] for path, data in CONTENTS.items()}
SKIPPED: Final = ".DS_Store"
ARCHIVE: Final = archive(
    [*(Member(path, data) for path, data in CONTENTS.items()), SKIPPED, Member("f/", b"", mode=FOLDER)]
)
REFUSED: Final = archive([Member("../out.txt", b"x"), Member("same.txt", b"1"), Member("same.txt", b"2", crc=7)])
DROPS: Final = {"a.zip": ARCHIVE, "again.zip": ARCHIVE, "bad.zip": REFUSED}


ABREAST: Final = 2
MakeDatabase = Callable[[Path], str]
"""Makes a database for one run in this folder, and returns its URL."""


class NoCompilerError(Exception):
    """What ends processes at a call has to be compiled, and there is nothing to do it."""


@dataclass(frozen=True)
class Finding:
    """What did not come out right after a crash at this point."""

    kind: str
    point: int
    what: str
    faults: tuple[str, ...]


@dataclass
class Walk:
    """What a walk has come to."""

    points: int = 0
    beyond: int = 0
    """Runs that came to their end before the point."""
    calls: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        faults = Counter(fault.partition(":")[0] for finding in self.findings for fault in finding.faults)
        told = "; ".join(f"{name} {faults.pop(name, 0)}" for name in ("lost", "doubled", "stuck", "left"))
        return f"{self.points} crash points walked; {told}"


def compiled(folder: Path) -> Path:
    """Return the library to preload. Raises NoCompilerError."""
    library = folder / "crash_point.so"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("there is no C compiler")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoCompilerError(f"the compiler cannot make it: {done.stderr.strip()[-300:]}")
    return library


class Crashing:
    """Runs that end at a point, each with the start after it; in one folder, one after the other."""

    def __init__(self, folder: Path, make_database: MakeDatabase, library: Path):
        self.folder = folder
        self._make_database = make_database
        self._url = ""
        self.shared = Storage(folder / "run" / "shared", HANDLERS="handlers_for_processes", WORKER_PROCESSES=1)
        self._state = folder / "state"
        self._reset(0, "all")
        preloaded = {
            "LD_PRELOAD": str(library),
            "CRASH_STATE": str(self._state),
            "CRASH_FOLDERS": f"{self.shared.base}:{folder / 'run' / 'database'}",
        }
        self._start_forking = partial(Forking, self.shared.environment | preloaded)
        self._forking = self._start_forking()

    def end(self) -> None:
        self._forking.end()

    def prepare(self) -> None:
        """Make a volume with the drops, and a database."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        (self.folder / "run" / "shared" / "uploads").mkdir(parents=True)
        self._url = self._make_database(self.folder / "run")
        for age, (name, data) in enumerate(DROPS.items()):
            path = self.shared.drop(name, data)
            os.utime(path, (path.stat().st_mtime - 60 + age,) * 2)

    def run_until(self, point: int, kind: str) -> str:
        """Run until the call of that number, and return what the call was; empty when there were not so many."""
        self._reset(point, kind)
        if self._run() is None:
            return f"it hung after {self._what()}"
        if kind == "one":
            self._wait_for_the_rest()
        else:
            self._end_the_rest()
        return self._what()

    def finish(self) -> int | None:
        """Start again in good order and return the exit status; None when it comes to no end."""
        self._reset(0, "all")
        return self._run()

    def _run(self) -> int | None:
        status = self._forking.run("run", "--once", folder=self.folder / "run", seconds=60, DATABASE_URL=self._url)
        if status is None:
            self._end_the_rest()
            self._forking.end()
            self._forking = self._start_forking()
        return status

    def _reset(self, point: int, kind: str) -> None:
        """In place, since it is mapped."""
        self._state.touch()
        with self._state.open("r+b") as state:
            state.write(_HEAD.pack(0, point, KINDS[kind], 0).ljust(_STATE_BYTES, b"\0"))

    def count(self) -> int:
        return int(_HEAD.unpack_from(self._state.read_bytes())[0])

    def succeeded(self) -> set[str]:
        """Return the files that are recorded as succeeded, without touching what the crash left."""
        if not self._url.startswith("sqlite"):
            return self._succeeded(self._url)
        database = Path(self._url[10:])
        with tempfile.TemporaryDirectory() as folder:
            for path in database.parent.glob(f"{database.name}*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, folder)
            copy = Path(folder) / database.name
            return self._succeeded(f"sqlite:///{copy}") if copy.exists() else set()

    def audit(self) -> Iterator[str]:
        """Yield what is not as it should be, each with the kind of fault in front of a colon."""
        with connected(self._url) as sessions, sessions.reading() as session:
            jobs = {job.drop_name: job for job in session.query(ProcessingJob)}
            rows = {row.member_path: row for row in session.query(FileExtraction)}
            count = session.query(FileExtraction).count()
            leases, runs = session.query(Lease).count(), session.query(RunSummary).count()
        states = {name: job.status for name, job in jobs.items()}
        first, second = ("again.zip", "a.zip") if "again.zip" in jobs else ("a.zip", "again.zip")
        yield from _differs("lost: batches", {first: "completed", "bad.zip": "quarantined"}, states)
        wanted = dict.fromkeys(CONTENTS, "success") | {SKIPPED: "skipped"}
        yield from _differs("lost: rows", wanted, {path: row.status for path, row in rows.items()})
        yield from _differs("doubled: rows", len(wanted), count)
        yield from _differs("doubled: summaries", 1, runs)
        yield from _differs("left: leases", 0, leases)
        yield from self._audit_files(jobs[first].batch_id if first in jobs else "")
        yield from self._audit_receipts(first, second)

    def _audit_files(self, batch_id: str) -> Iterator[str]:
        base = self.shared.base
        folder = base / "extracted" / batch_id
        files = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            for path in folder.rglob("*")
            if path.is_file()
        }
        yield from _differs("lost: files", FINGERPRINTS, files)
        yield from _differs("left: in extracted", [".staging", batch_id], sorted(os.listdir(base / "extracted")))
        places = {
            "uploads": [],
            "processed": ["a.zip", "again.zip"],
            "quarantine": ["bad.zip", "bad.zip.reason.json"],
            "extracted/.staging": [],
            ".inbox/locks": [],
            ".inbox/instances": [],
            ".inbox/drafts": [],
        }
        for name, wanted in places.items():
            yield from _differs(f"left: in {name}", wanted, sorted(os.listdir(base / name)))
        for place, drop in (("processed", "a.zip"), ("processed", "again.zip"), ("quarantine", "bad.zip")):
            path = base / place / drop
            if not path.exists() or path.read_bytes() != DROPS[drop]:
                yield f"lost: {path.name} is not in {place}"

    def _audit_receipts(self, first: str, second: str) -> Iterator[str]:
        told = {}
        for path in (self.shared.base / "receipts").iterdir():
            try:
                receipt = json.loads(path.read_text())
            except ValueError:
                yield f"left: {path.name}"
                continue
            told.setdefault(receipt["drop"], []).append((receipt["state"], len(receipt["entries"])))
            if receipt["drop"] == first:
                yield from _differs(
                    "lost: counts", (2, 0, 1), (receipt["succeeded"], receipt["failed"], receipt["skipped"])
                )
        wanted = {first: [("completed", 3)], second: [("duplicate", 3)], "bad.zip": [("quarantined", 0)]}
        yield from _differs("lost: receipts", wanted, told)

    def _succeeded(self, url: str) -> set[str]:
        with connected(url) as sessions, sessions.reading() as session:
            return {row.doc_id for row in session.query(FileExtraction).filter_by(status="success")}

    def _what(self) -> str:
        return self._state.read_bytes()[_WHAT_AT:].rstrip(b"\0").decode(errors="replace")

    def _pids(self) -> list[int]:
        data = self._state.read_bytes()
        return [pid for pid in struct.unpack_from(f"={_PROCESSES}i", data, _HEAD.size) if pid]

    def _end_the_rest(self) -> None:
        """One that was only just being made when all were killed."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _wait_for_the_rest(self) -> None:
        """Those that are left end by themselves; that they do is tested elsewhere."""
        wait_for(lambda: not any(_is_alive(pid) for pid in self._pids()), "the end of the processes that are left")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _differs(name: str, wanted: object, found: object) -> Iterator[str]:
    if wanted != found:
        yield f"{name}: wanted {wanted}, found {found}"


def crash_and_judge(crashing: Crashing, point: int, kind: str) -> tuple[str, tuple[str, ...]]:
    """Crash at a point, start again, and return what the call was and every fault found."""
    crashing.prepare()
    what = crashing.run_until(point, kind)
    succeeded, before = crashing.succeeded(), len(crashing.shared.calls())
    status = crashing.finish()
    faults = list(crashing.audit())
    if status not in (0, 1):
        faults.append(f"stuck: it ended with {status}")
    faults += [f"doubled: {path}" for doc_id, path, _ in crashing.shared.calls()[before:] if doc_id in succeeded]
    return what, tuple(faults)


def walk(
    folder: Path, make_database: MakeDatabase, library: Path, *, kind: str, points: int | None = None, seed: int = 1
) -> Walk:
    """Walk every point, or so many of them, evenly spread from a start that the seed decides."""
    found = Walk()
    free: SimpleQueue[Crashing] = SimpleQueue()

    def at(point: int) -> tuple[int, str, tuple[str, ...]]:
        crashing = free.get()
        try:
            what, faults = crash_and_judge(crashing, point, kind)
            if faults:
                shutil.copytree(crashing.folder / "run", folder / f"{kind}-at-{point}")
        finally:
            free.put(crashing)
        return point, what, faults

    with ThreadPoolExecutor(ABREAST) as pool, ExitStack() as stack:
        for number in range(ABREAST):
            place = folder / f"{kind}-{number}"
            place.mkdir()
            crashing = Crashing(place, make_database, library)
            stack.callback(crashing.end)
            free.put(crashing)
        total = count_points(crashing)
        for point, what, faults in pool.map(at, spread(total, points, seed)):
            found.points += bool(what)
            if found.points % 50 == 0:
                print(found, flush=True)
            found.beyond += not what
            found.calls[what.partition(" ")[0]] += 1
            if faults:
                found.findings.append(Finding(kind, point, what, faults))
                print(f"{kind} {point} at {what}:", *faults, sep="\n    ", flush=True)
    return found


def spread(total: int, points: int | None, seed: int) -> list[int]:
    """Return all numbers up to `total`, or so many of them, evenly spread."""
    if points is None or points >= total:
        return list(range(1, total + 1))
    step = total / points
    start = random.Random(seed).uniform(0, step)
    return [int(start + step * number) + 1 for number in range(points)]


def count_points(crashing: Crashing) -> int:
    """Run to the end, and return how many calls there were."""
    crashing.prepare()
    crashing.run_until(0, "all")
    faults = list(crashing.audit())
    if faults:
        raise AssertionError(f"it is not right without a crash: {faults}")
    return crashing.count()


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[MakeDatabase]:
    """Yield what makes a database for each point."""
    from postgres import any_server

    if kind == "sqlite":
        template = folder / "template.db"
        migrate(f"sqlite:///{template}")

        def copied(place: Path) -> str:
            (place / "database").mkdir()
            shutil.copyfile(template, place / "database" / "inbox.db")
            return f"sqlite:///{place / 'database' / 'inbox.db'}"

        yield copied
        return
    with any_server() as server:
        template_url = server.create_database()
        migrate(template_url)
        yield lambda _place: server.create_database(template=template_url)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--kind", choices=tuple(KINDS), default="all", help="who dies: all, or the one process")
    parser.add_argument("--every", action="store_true", help="walk every point")
    parser.add_argument("--points", type=int, default=40, help="so many, evenly spread")
    parser.add_argument("--seed", type=int, default=1, help="where among them to begin")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="walking-"))
    with databases(asked.database, folder) as make_database:
        points = None if asked.every else asked.points
        walked = walk(folder, make_database, compiled(folder), kind=asked.kind, points=points, seed=asked.seed)
    told = ", ".join(f"{call or 'none'} {count}" for call, count in sorted(walked.calls.items()))
    print(f"{asked.database}, {asked.kind}: {told}\n{walked}")
    if not walked.findings:
        shutil.rmtree(folder)
    return bool(walked.findings)


if __name__ == "__main__":
    sys.exit(main())
