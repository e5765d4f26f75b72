"""SIGTERM in every phase: the end comes within the grace period, with 0, and nothing is charged for it."""

import os
import signal
import sqlite3
from contextlib import closing, contextmanager

import psycopg2
import pytest
from databases import connected
from processes import Storage, wait_for
from sqlalchemy import make_url
from zips import STORED, Member, archive

from inbox.database.models import FileExtraction, Lease, ProcessingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
GRACE_SECONDS = 3
LARGE = b"x" * (60 << 20)


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(
        tmp_path / "shared",
        database_url,
        HANDLERS="handlers_for_processes",
        SHUTDOWN_GRACE_SECONDS=GRACE_SECONDS,
        DATABASE_TIMEOUT=60,
    )


@contextmanager
def writers_kept_waiting(url):
    """Let nobody else write to the database."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(make_url(url).database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
        return
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg2.connect(plain)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE processing_jobs, file_extractions, leases IN EXCLUSIVE MODE")
        yield


def held(database_url):
    """Return what the database says after the end: of batches state and attempts, of files state and retries."""
    with connected(database_url) as sessions, sessions.reading() as session:
        jobs = [(job.status, job.attempt_count) for job in session.query(ProcessingJob)]
        files = {(file.status, file.retry_count) for file in session.query(FileExtraction)}
        return jobs, files, session.query(Lease).count()


def finish(shared):
    done = shared.run("run", "--once", seconds=200)
    assert 0 == done.returncode, done.stdout[-2000:]


def test_while_a_drop_is_unpacked(shared, database_url):
    """
    Stopped in the middle of an archive, the service gives it back uncounted and leaves nothing of it in staging.
    """
    shared.drop("a.zip", archive([Member(f"{n}.bin", LARGE, method=STORED) for n in range(3)]))
    staging = shared.base / "extracted" / ".staging"
    with shared.service() as service:
        wait_for(lambda: staging.exists() and os.listdir(staging), "the extraction")
        status = service.terminate()
    jobs, files, leases = held(database_url)
    left = os.listdir(staging)
    finish(shared)

    assert (0, [("received", 0)], set(), 0, []) == (status, jobs, files, leases, left)
    assert ([("completed", 1)], {("success", 0)}) == held(database_url)[:2]
    assert 3 == len(shared.calls())


def test_while_nothing_is_done(shared, database_url):
    """
    An idle service ends at once, and leaves no mark of its life.
    """
    with shared.service() as service:
        status = service.terminate()

    assert (0, ([], set(), 0)) == (status, held(database_url))
    assert [] == os.listdir(shared.base / ".inbox" / "instances")


def test_while_files_are_processed(shared, database_url):
    """
    Stopped in the middle of a page, the service finishes what is in hand and gives the rest back uncounted.
    """
    shared.environment["TEST_SLOW_SECONDS"] = "0.05"
    shared.drop("a.zip", [f"slow-{number}.txt" for number in range(60)])
    with shared.service() as service:
        wait_for(lambda: len(shared.calls()) > 5, "the calls")
        status = service.terminate()
    jobs, files, leases = held(database_url)
    finish(shared)

    assert (0, [("processing", 1)], {("success", 0), ("pending", 0)}, 0) == (status, jobs, files, leases)
    assert 60 == len({doc_id for doc_id, *_ in shared.calls()}) == len(shared.calls())
    assert {1} == {attempt for *_, attempt in shared.calls()}


@pytest.mark.parametrize("signals", [1, 2])
def test_while_a_handler_does_not_end(shared, database_url, signals):
    """
    What is not done when the grace period ends, or when a second signal comes, is killed and given back uncounted.
    """
    shared.drop("a.zip", ["hang.txt"])
    settings = {"SHUTDOWN_GRACE_SECONDS": GRACE_SECONDS if signals == 1 else 600}
    with shared.service(**settings) as service:
        wait_for(shared.calls, "the call")
        service.process.send_signal(signal.SIGTERM)
        if signals == 2:
            wait_for(lambda: service.events("ServiceStopping"), "the first signal")
            wait_for(lambda: service.process.send_signal(signal.SIGTERM) or service.process.poll(), "the end")
        status = service.process.wait(60)
    _, files, _ = held(database_url)

    assert ((0, {("pending", 0)}) if signals == 1 else (-signal.SIGTERM, {("processing", 0)})) == (status, files)


def test_while_the_database_stalls(shared, database_url):
    """
    A database in which nothing can be written holds up neither the end nor, later, the work that was under way.
    """
    shared.environment["TEST_SLOW_SECONDS"] = "0.05"
    with shared.service() as service:
        shared.drop("a.zip", [f"slow-{number}.txt" for number in range(60)])
        wait_for(lambda: len(shared.calls()) > 5, "the calls")
        with writers_kept_waiting(database_url):
            shared.drop("b.zip", ["1.txt"])
            status = service.terminate()
    finish(shared)
    jobs, files, leases = held(database_url)

    assert 0 == status
    assert {"completed"} == {status for status, _ in jobs}
    assert ({"success"}, 0) == ({status for status, _ in files}, leases)
