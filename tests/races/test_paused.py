"""A service or a worker that is stopped past its lease: others do its work, and when it wakes it changes nothing."""

import os
from collections import Counter

import pytest
from databases import connected
from pausing import go_on, members_of, pause
from processes import Storage, wait_for
from zips import STORED, Member, archive, tree

from inbox.database.models import FileExtraction, Lease, ProcessingJob

pytestmark = pytest.mark.slow
FILES = 60


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(
        tmp_path / "shared", database_url, HANDLERS="handlers_for_processes", LEASE_SECONDS=2, TEST_SLOW_SECONDS=0.05
    )


def slow_files(prefix=""):
    return [Member(f"{prefix}slow-{number}.txt", b"%d" % number) for number in range(FILES)]


def succeeded(database_url):
    with connected(database_url) as sessions, sessions.reading() as session:
        return {file.doc_id for file in session.query(FileExtraction).filter_by(status="success")}


def said(shared, *names):
    """Return these events of all services, in the order of the log."""
    lines = (shared.base.parent / "output.log").read_text(errors="replace").splitlines()
    return [line for line in lines if any(f'"event": "{name}"' in line for name in names)]


def test_woken_service_calls_no_handler_for_what_is_done(shared, database_url):
    """
    Stopped past its lease with pages in hand, a service calls no handler for them when it wakes.
    """
    with shared.service() as first:
        shared.drop("a.zip", archive(slow_files()))
        wait_for(lambda: len(shared.calls()) >= 6, "the calls")
        paused = members_of(first)
        pause(paused, database_url)
        with shared.service() as second:
            told = shared.wait_for_receipt("a.zip")
            before, done = shared.calls(), succeeded(database_url)
            go_on(paused)
            shared.drop("b.zip", archive(slow_files("b/")))  # enough for everybody who is awake
            shared.wait_for_receipt("b.zip")
            statuses = [first.terminate(), second.terminate()]
    later = shared.calls()[len(before) :]

    assert (FILES, "completed") == (told["succeeded"], told["state"])
    assert [] == [call for call in later if call[0] in done]
    assert FILES == len(later) == len(done)
    assert [0, 0] == statuses


def test_single_paused_worker_is_not_waited_for(shared, database_url):
    """
    The page of a worker that is stopped alone, its service alive, is taken over; when it wakes it does nothing of it.
    """
    shared.environment["FILE_PROCESSING_TIMEOUT"] = "5"
    with shared.service() as service:
        shared.drop("a.zip", archive(slow_files()))
        wait_for(lambda: len(shared.calls()) >= 6, "the calls")
        paused = service.workers()[:1]
        pause(paused, database_url)
        told = shared.wait_for_receipt("a.zip")
        calls = shared.calls()
        go_on(paused)
        shared.drop("b.zip", archive(slow_files("b/")))  # enough for everybody who is awake
        shared.wait_for_receipt("b.zip")
        status = service.terminate()

    assert (FILES, "completed", 0) == (told["succeeded"], told["state"], status)
    assert {f"b/slow-{number}.txt" for number in range(FILES)} == {path for _, path, _ in shared.calls()[len(calls) :]}
    assert {1, 2} >= set(Counter(doc_id for doc_id, *_ in calls).values())


def caught_in_extraction(shared, service, database_url):
    """Drop archives until the service is stopped while it unpacks one; return its name and its content."""
    staging = shared.base / "extracted" / ".staging"
    for number in range(10):
        contents = {f"{number}/{n}.txt": os.urandom(50_000) for n in range(600)}
        name = f"{number}.zip"
        data = archive([Member(path, content, STORED) for path, content in contents.items()])
        shared.drop(name, data)
        wait_for(lambda: any(not path.name.endswith(".room") for path in staging.iterdir()), "the extraction")
        paused = members_of(service)
        pause(paused, database_url)
        with connected(database_url) as sessions, sessions.reading() as session:
            (job,) = session.query(ProcessingJob).filter_by(drop_name=name)
            if job.status == "extracting":
                return name, job.batch_id, contents
        go_on(paused)
        shared.wait_for_receipt(name)
    raise AssertionError("no archive was caught")


def test_woken_extraction_publishes_nothing_over_the_winner(shared, database_url):
    """
    Stopped in the middle of an archive, a service wakes to find it done by another, and moves nothing of it.
    """
    with shared.service() as first:
        name, batch_id, contents = caught_in_extraction(shared, first, database_url)
        published = shared.base / "extracted" / batch_id
        with shared.service() as second:
            told = shared.wait_for_receipt(name)
            before = published.stat().st_ino
            go_on(members_of(first))
            wait_for(lambda: [line for line in said(shared, "BatchReleased") if "LEASE_LOST" in line], "its waking")
            statuses = [first.terminate(), second.terminate()]
    with connected(database_url) as sessions, sessions.reading() as session:
        (job,) = session.query(ProcessingJob).filter_by(drop_name=name)
        leases = session.query(Lease).count()

    assert (before, contents) == (
        published.stat().st_ino,
        {path: data for path, data in tree(published).items() if data is not None},
    )
    assert ("completed", 2, 0) == (job.status, job.attempt_count, leases)
    assert (len(contents), "completed", [0, 0]) == (told["succeeded"], told["state"], statuses)
    assert 1 == len([line for line in said(shared, "BatchRegistered") if name in line])
    assert {1} == set(Counter(doc_id for doc_id, *_ in shared.calls()).values())
    assert [] == os.listdir(shared.base / "extracted" / ".staging")
