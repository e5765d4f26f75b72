"""Several services on one folder and one database share the work, and nothing is done twice."""

from collections import Counter
from contextlib import ExitStack

import pytest
from databases import connected
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction, ProcessingJob

pytestmark = pytest.mark.slow
DROPS = 12
FILES = 40


@pytest.mark.parametrize("services", [2, 3])
def test_services_share_without_a_double(tmp_path, database_url, database_kind, services):
    """
    However many services see the same drops, each batch is made once, and each file's handler is called once.
    """
    shared = Storage(tmp_path / "shared", database_url, HANDLERS="handlers_for_processes", WORKER_PROCESSES=1)
    with ExitStack() as stack:
        running = [stack.enter_context(shared.service()) for _ in range(services)]
        for number in range(DROPS):
            members = [Member(f"{number}/{index}.txt", b"%d-%d" % (number, index)) for index in range(FILES)]
            shared.drop(f"{number}.zip", archive(members))
        for number in range(DROPS):
            shared.wait_for_receipt(f"{number}.zip")
        wait_for(lambda: not list((shared.base / "uploads").iterdir()), "the moves")
        statuses = [service.terminate() for service in running]
    with connected(database_url) as sessions, sessions.reading() as session:
        jobs = [job.status for job in session.query(ProcessingJob)]
        files = Counter(file.status for file in session.query(FileExtraction))

    assert [0] * services == statuses
    assert ["completed"] * DROPS == jobs
    assert {"success": DROPS * FILES} == files
    assert {1} == set(Counter(doc_id for doc_id, *_ in shared.calls()).values())
    assert DROPS * FILES == len(shared.calls())


def test_survivor_takes_over(tmp_path, database_url):
    """
    When one of two services is killed, the other one finishes its work soon, without waiting for the lease.
    """
    shared = Storage(
        tmp_path / "shared", database_url, HANDLERS="handlers_for_processes", LEASE_SECONDS=8, TEST_SLOW_SECONDS=0.05
    )
    with shared.service() as first, shared.service() as second:
        shared.drop("a.zip", [f"slow-{number}.txt" for number in range(60)])
        wait_for(lambda: len(shared.calls()) >= 5, "the calls")
        first.kill()
        told = shared.wait_for_receipt("a.zip")
        status = second.terminate()

    assert (0, "completed", 60) == (status, told["state"], told["succeeded"])
