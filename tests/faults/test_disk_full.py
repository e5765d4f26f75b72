"""No byte, or no inode, is left on the volume: the service waits, says so once, and goes on when there is room."""

import os
from collections import Counter
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest
from databases import connected
from mounts import in_memory
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction, ProcessingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MOMENTS = ("", "BatchRegistered", "AttemptSucceeded")
FILES = 40


class Ballast:
    """What fills a volume: one file with every byte there is, or empty files until there is no inode left."""

    def __init__(self, base):
        self.folder = base / "ballast"
        self.folder.mkdir()

    def fill(self, what):
        with (self.folder / "bytes").open("wb") as file, suppress(OSError):
            if what == "inodes":
                for number in range(100_000):
                    (self.folder / str(number)).touch()
            size = 0
            for step in (1 << 22, 1 << 16, 1 << 12):
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), size, step)
                        size += step

    def remove(self):
        for path in self.folder.iterdir():
            path.unlink()


def readiness(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


def audit(shared, url, drops):
    """Hold rows, receipts, archives, files and the handler's outputs against what was dropped."""
    with connected(url) as sessions, sessions.reading() as session:
        jobs = {job.drop_name: job for job in session.query(ProcessingJob)}
        rows = session.query(FileExtraction).all()
    assert drops.keys() == jobs.keys()
    assert {"success"} == {row.status for row in rows}
    outputs = {path.name: path.read_bytes() for path in (shared.base / "outputs").iterdir()}
    wanted = {}
    for row in rows:
        job = next(job for job in jobs.values() if job.batch_id == row.batch_id)
        content = drops[job.drop_name][row.member_path]
        wanted[row.doc_id] = content * 4
        assert content == (shared.base / row.file_path).read_bytes()
    assert wanted == outputs
    assert sorted(os.listdir(shared.base / "processed")) == sorted(drops)
    assert len(drops) == len(os.listdir(shared.base / "receipts"))
    for name, members in drops.items():
        told = shared.receipt(name)
        assert ("completed", len(members)) == (told["state"], told["succeeded"])
        assert [] == [entry for entry in told["entries"] if entry.get("attempts", 1) != 1]
    assert [] == os.listdir(shared.base / "extracted" / ".staging")


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_volume_that_fills_up_while_the_service_runs(tmp_path, unused_port, what):
    """
    Whatever the service is at when the last byte or inode goes, with the embedded database on the volume, it waits, is
    not ready, and brings everything to its end when there is room: nothing is lost, and no attempt charged.
    """
    options = {"size": "96m"} | ({"nr_inodes": 700} if what == "inodes" else {})
    with in_memory(tmp_path / "shared", **options) as base:
        url = f"sqlite:///{base}/.inbox/inbox.db"
        shared = Storage(base, url, HANDLERS="handlers_writing", HTTP_PORT=unused_port, DATABASE_TIMEOUT=3)
        shared.environment["PYTHONPATH"] += f":{Path(__file__).parent}"
        (base / "outputs").mkdir()
        ballast, drops = Ballast(base), {}
        with shared.service() as service:
            for number, moment in enumerate(MOMENTS):
                wait_for(lambda: readiness(unused_port) == 200, "readiness")
                name = f"{number}.zip"
                drops[name] = {f"d/{number}-{n}.bin": os.urandom(3000) for n in range(FILES)}
                data = archive([Member(path, content) for path, content in drops[name].items()])
                (base / "uploads" / f".{name}.part").write_bytes(data)
                before = len(service.events("TroubleBegan"))
                if not moment:
                    ballast.fill(what)
                (base / "uploads" / f".{name}.part").rename(base / "uploads" / name)
                if moment:
                    wait_for(partial(has_happened, service, moment, name), moment)
                    ballast.fill(what)
                wait_for(partial(has_met_trouble, service, before), f"trouble at {moment or 'the start'}")
                wait_for(lambda: readiness(unused_port) != 200, "readiness to go")
                ballast.remove()
                shared.wait_for_receipt(name)
            wait_for(lambda: not os.listdir(base / "uploads"), "the moves")
            wait_for(lambda: readiness(unused_port) == 200, "readiness")
            status = service.terminate()
        audit(shared, url, drops)
    began, over = (Counter(e["leg"] for e in service.events(kind)) for kind in ("TroubleBegan", "TroubleOver"))

    assert 0 == status
    assert "worker 0" in began
    assert began.keys() == over.keys()
    assert max(began.values()) <= 2 * len(MOMENTS)
    assert [] == [line["message"] for line in service.lines() if line["level"] == "ERROR"]
    assert "Traceback" not in service.output.read_text()


def has_happened(service, moment, name):
    """Say whether that event was told of this drop, or of a file of it."""
    return any(name in {told.get("drop"), zip_of(told.get("member_path", ""))} for told in service.events(moment))


def has_met_trouble(service, before):
    return len(service.events("TroubleBegan")) > before


def zip_of(member_path):
    return f"{member_path.removeprefix('d/').partition('-')[0]}.zip"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_start_on_a_full_volume(tmp_path, unused_port, request, kind):
    """
    Started on a full volume the service lives, says once what it waits for, and begins when there is room.
    """
    with in_memory(tmp_path / "shared", size="96m") as base:
        url = f"sqlite:///{base}/.inbox/inbox.db"
        if kind == "postgresql":
            url = request.getfixturevalue("postgres_server").create_database()
        shared = Storage(base, url, HANDLERS="handlers_for_processes", HTTP_PORT=unused_port, DATABASE_TIMEOUT=3)
        with shared.service() as service:
            service.terminate()
        ballast = Ballast(base)
        ballast.fill("bytes")
        with shared.service(until="waiting") as service:
            wait_for(lambda: readiness(unused_port) == 503, "the probes")
            ballast.remove()
            service.wait_until("inbox serves")
            shared.drop("a.zip", ["a.txt"])
            told = shared.wait_for_receipt("a.zip")
            status = service.terminate()
        waiting = [line["message"] for line in service.lines() if line["message"].startswith("waiting")]

    assert ("completed", 0) == (told["state"], status)
    assert len(waiting) == len(set(waiting))
    assert "Traceback" not in service.output.read_text()
