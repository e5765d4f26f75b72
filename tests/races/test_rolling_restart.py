"""Two services restarted in turn while drops arrive: as a rolling update does it."""

from collections import Counter
from contextlib import ExitStack

import pytest
from databases import connected
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction, ProcessingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
RESTARTS = 3
FILES = 40


def test_rolling_restart_loses_and_repeats_nothing(tmp_path, database_url):
    """
    However often services are asked to stop under load, each file is handled once and no attempt is charged.
    """
    shared = Storage(
        tmp_path / "shared",
        database_url,
        HANDLERS="handlers_for_processes",
        WORKER_PROCESSES=1,
        TEST_SLOW_SECONDS=0.02,
        SHUTDOWN_GRACE_SECONDS=60,
    )
    drops, statuses, told = [], [], []

    def drop() -> None:
        number = len(drops)
        members = [Member(f"slow-{index}.txt", b"%d-%d" % (number, index)) for index in range(FILES)]
        shared.drop(f"{number}.zip", archive(members))
        drops.append(f"{number}.zip")

    with ExitStack() as stack:
        running = [stack.enter_context(shared.service()) for _ in range(2)]
        for _ in range(RESTARTS):
            drop()
            before = len(shared.calls())
            wait_for(lambda before=before: len(shared.calls()) > before + 5, "the calls")
            drop()
            leaving = running.pop(0)
            statuses.append(leaving.terminate())
            told += leaving.lines()
            running.append(stack.enter_context(shared.service()))
        for name in drops:
            shared.wait_for_receipt(name)
        wait_for(lambda: not list((shared.base / "uploads").iterdir()), "the moves")
        statuses += [service.terminate() for service in running]
        for service in running:
            told += service.lines()
    with connected(database_url) as sessions, sessions.reading() as session:
        jobs = {(job.status, job.attempt_count) for job in session.query(ProcessingJob)}
        files = Counter((file.status, file.retry_count) for file in session.query(FileExtraction))

    assert {0} == set(statuses)
    assert {("completed", 1)} == jobs
    assert {("success", 0): len(drops) * FILES} == files
    assert {1} == set(Counter(doc_id for doc_id, *_ in shared.calls()).values())
    assert {1} == {attempt for *_, attempt in shared.calls()}
    assert [] == [line for line in told if line.get("event") in {"WorkRescued", "WorkerDied"}]
