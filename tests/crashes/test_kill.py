"""SIGKILL at any moment: start again, and everything completes, no row twice, nothing half-published."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from databases import connected
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction, Lease, ProcessingJob

pytestmark = pytest.mark.slow
FILES = 300


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(tmp_path / "shared", database_url, HANDLERS="handlers_for_processes")


def audit(shared, database_url, contents):
    """Hold rows, files and receipt against what was dropped."""
    with connected(database_url) as sessions, sessions.reading() as session:
        rows = session.query(FileExtraction).all()
        (job,) = session.query(ProcessingJob).all()
        leases = session.query(Lease).count()
    assert sorted(contents) == sorted(row.member_path for row in rows)
    assert {"success"} == {row.status for row in rows}
    assert (len(contents), "completed") == (job.total_files, job.status)
    folder = shared.base / "extracted" / job.batch_id
    assert contents == {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert [job.batch_id] == [name for name in os.listdir(shared.base / "extracted") if name != ".staging"]
    assert [] == os.listdir(shared.base / "extracted" / ".staging")
    assert 0 == leases
    assert (len(contents), 0) == (shared.receipt("a.zip")["succeeded"], shared.receipt("a.zip")["failed"])
    assert (shared.base / "processed" / "a.zip").exists()


def finish(shared):
    """Start again and let everything come to rest, in good order."""
    with shared.service() as service:
        shared.wait_for_receipt("a.zip")
        wait_for(lambda: not os.listdir(shared.base / "uploads"), "the move")
        service.terminate()


def test_kill_during_extraction(shared, database_url):
    """
    Killed while an archive is being unpacked, the service leaves nothing published and completes after its next start.
    """
    contents = {f"d{n % 9}/{n}.txt": os.urandom(60_000) for n in range(FILES)}
    data = archive([Member(path, content) for path, content in contents.items()])
    with shared.service() as service:
        shared.drop("a.zip", data)
        staging = shared.base / "extracted" / ".staging"
        wait_for(lambda: any(staging.iterdir()), "the extraction")
        service.kill()
    published = [name for name in os.listdir(shared.base / "extracted") if name != ".staging"]
    finish(shared)

    assert published in ([], [shared.receipt("a.zip")["batch_id"]])
    audit(shared, database_url, contents)


@pytest.mark.parametrize("calls", [1, 40, 299])
def test_kill_during_processing(shared, database_url, calls):
    """
    Killed with files in hand, the service completes after its next start: what had succeeded is not done again.
    """
    contents = {f"{n}.txt": b"%d" % n for n in range(FILES)}
    with shared.service() as service:
        shared.drop("a.zip", archive([Member(path, content) for path, content in contents.items()]))
        wait_for(lambda: len(shared.calls()) >= calls, "the calls")
        service.kill()
    with connected(database_url) as sessions, sessions.reading() as session:
        succeeded = {row.doc_id for row in session.query(FileExtraction).filter_by(status="success")}
    before = len(shared.calls())
    finish(shared)

    assert not succeeded & {doc_id for doc_id, *_ in shared.calls()[before:]}
    audit(shared, database_url, contents)


def test_kill_of_the_worker_processes(shared, database_url):
    """
    Worker processes that are killed are replaced, and their files go through.
    """
    shared.environment["TEST_SLOW_SECONDS"] = "0.05"
    contents = {f"slow-{n}.txt": b"%d" % n for n in range(30)}
    with shared.service() as service:
        shared.drop("a.zip", archive([Member(path, content) for path, content in contents.items()]))
        wait_for(lambda: len(shared.calls()) >= 3, "the calls")
        for worker in service.workers():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        shared.wait_for_receipt("a.zip")
        wait_for(lambda: not os.listdir(shared.base / "uploads"), "the move")
        assert service.events("WorkerDied")
        service.terminate()

    audit(shared, database_url, contents)


def test_kill_of_the_service_alone(shared, database_url):
    """
    When only the main process is killed its workers end by themselves, and the next start takes over at once.
    """
    contents = {f"slow-{n}.txt": b"%d" % n for n in range(20)}
    shared.environment["TEST_SLOW_SECONDS"] = "0.1"
    with shared.service() as service:
        shared.drop("a.zip", archive([Member(path, content) for path, content in contents.items()]))
        wait_for(lambda: len(shared.calls()) >= 3, "the calls")
        workers = service.workers()
        service.process.kill()
        service.process.wait(10)
        wait_for(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in workers), "their end")
    finish(shared)

    assert 2 == len(workers)
    audit(shared, database_url, contents)


def test_many_kills_at_any_moment(shared, database_url):
    """
    Killed again and again, wherever it happens to be, the service completes when it is left alone.
    """
    contents = {f"{n}.txt": b"%d" % n for n in range(FILES)}
    data = archive([Member(path, content) for path, content in contents.items()])
    shared.environment["MAX_RETRY_ATTEMPTS"] = "20"
    shared.drop("a.zip", data)
    for seconds in (0.25, 0.35, 0.45, 0.6, 0.8):
        with shared.service() as service, suppress(AssertionError):
            wait_for(lambda: False, seconds=seconds)
            service.kill()
    finish(shared)

    audit(shared, database_url, contents)
