"""
The power goes while the service works: what a row or a receipt claims to exist is there afterwards, byte for byte.

The file system is shut down so that nothing more reaches its image, not even its own log; then it is mounted again, as
after a reset. The database lies on the same volume (SQLite), or elsewhere, where it survives and may claim what the
volume has lost.
"""

import hashlib
import json
import os
from functools import partial

import pytest
from databases import connected
from mounts import LOSES_LOG, image
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction, ProcessingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MOMENTS = {
    "ext4": ("BatchClaimed", "BatchRegistered", "AttemptSucceeded", "BatchClosed", "BatchReported"),
    "xfs": ("BatchRegistered", "AttemptSucceeded", "BatchReported"),
}


@pytest.fixture
def volume(kind, tmp_path):
    with image(tmp_path, kind) as made:
        yield made


def contents(number, files):
    return {f"d{n % 3}/{number}-{n}.bin": os.urandom(2000 + 700 * n) for n in range(files)}


def claimed_of(url, base, receipts):
    """Return what is claimed to exist below the base: path to size, and SHA-256 where that is told."""
    claims = {}
    with connected(url) as sessions, sessions.reading() as session:
        for row in session.query(FileExtraction).filter(FileExtraction.file_path != ""):
            claims[row.file_path] = (row.size_bytes, row.content_sha256)
        for job in session.query(ProcessingJob).filter(ProcessingJob.zip_path != ""):
            claims[job.zip_path] = (job.archive_bytes, job.batch_id)
    for name in receipts:
        json.loads((base / "receipts" / name).read_text())  # a receipt with a name is whole
    return claims


def found_below(base, claims):
    found = {}
    for name in claims:
        path = base / name
        if path.exists():
            content = path.read_bytes()
            found[name] = (len(content), hashlib.sha256(content).hexdigest())
    return found


def reported(service):
    return {event["receipt"] for event in service.events("BatchReported")}


def has_come(service, moment, data):
    batch_id = hashlib.sha256(data).hexdigest()
    return any(batch_id == event["batch_id"] for event in service.events(moment))


@pytest.mark.parametrize("kind", MOMENTS)
def test_power_loss_at_chosen_moments(kind, volume, own_postgres_server, tmp_path):
    """
    Whenever the power goes, every file, archive and receipt that the surviving database or the log claims is there and
    whole; after the next start all drops come to their end, and nothing that had succeeded is done again.
    """
    url = own_postgres_server.create_database()
    shared = Storage(volume.point, url, HANDLERS="handlers_for_processes", LOG_FILE_PATH=tmp_path / "worker.log")
    os.sync()
    dropped = {}
    for number, moment in enumerate(MOMENTS[kind]):
        members = contents(number, 4 if number % 2 else 24)
        data = archive([Member(path, content) for path, content in members.items()])
        dropped[f"{number}.zip"] = (data, members)
        with shared.service() as service:
            shared.drop(f"{number}.zip", data)
            wait_for(partial(has_come, service, moment, data), moment)
            told = reported(service)
            volume.cut_power(LOSES_LOG)
            service.kill()
        volume.unmount()
        volume.mount()
        claims = claimed_of(url, volume.point, os.listdir(volume.point / "receipts"))
        found = found_below(volume.point, claims)
        assert (moment, claims) == (moment, found)
        assert told <= {f"receipts/{name}" for name in os.listdir(volume.point / "receipts")}
        if not (volume.point / "uploads" / f"{number}.zip").exists() and not claims:
            shared.drop(f"{number}.zip", data)
    with connected(url) as sessions, sessions.reading() as session:
        succeeded = {row.doc_id for row in session.query(FileExtraction).filter_by(status="success")}
    before = len(shared.calls())
    with shared.service() as service:
        for name in dropped:
            assert "completed" == shared.wait_for_receipt(name)["state"]
        wait_for(lambda: not os.listdir(volume.point / "uploads"), "the moves")
        service.terminate()

    assert not succeeded & {doc_id for doc_id, *_ in shared.calls()[before:]}
    claims = claimed_of(url, volume.point, os.listdir(volume.point / "receipts"))
    assert claims == found_below(volume.point, claims)
    assert {f"processed/{name}" for name in dropped} <= claims.keys()
    assert sum(len(members) for _, members in dropped.values()) == len(claims) - len(dropped)


def has_called(shared, count):
    return len({doc_id for doc_id, *_ in shared.calls()}) >= count


def test_power_loss_with_the_database_on_the_volume(tmp_path):
    """
    Files, rows and receipts agree after a loss of power at any moment, with the embedded database on the same volume.
    """
    with image(tmp_path) as volume:
        url = f"sqlite:///{volume.point}/.inbox/inbox.db"
        shared = Storage(volume.point, url, HANDLERS="handlers_for_processes", LOG_FILE_PATH=tmp_path / "worker.log")
        data = archive([Member(path, content) for path, content in contents(0, 40).items()])
        for calls in (1, 20, 40):
            with shared.service() as service:
                if not shared.receipt("a.zip") and not (volume.point / "uploads" / "a.zip").exists():
                    shared.drop("a.zip", data)
                wait_for(partial(has_called, shared, calls), "the calls")
                volume.cut_power(LOSES_LOG)
                service.kill()
            volume.unmount()
            volume.mount()
            claims = claimed_of(url, volume.point, os.listdir(volume.point / "receipts"))
            found = found_below(volume.point, claims)
            assert (calls, claims) == (calls, found)
        with shared.service() as service:
            told = shared.wait_for_receipt("a.zip")
            wait_for(lambda: not os.listdir(volume.point / "uploads"), "the move")
            service.terminate()

    assert ("completed", 40) == (told["state"], told["succeeded"])
