"""A small drop beside a large one: it does not wait for the large one's end."""

import pytest
from databases import connected
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction

pytestmark = pytest.mark.slow
LARGE = 20_000


def unfinished(sessions, batch_id):
    with sessions.reading() as session:
        files = session.query(FileExtraction).filter_by(batch_id=batch_id, processing_completed_at=None)
        return files.count()


def test_small_drop_is_done_while_the_large_one_has_hardly_begun(tmp_path, database_url):
    """
    With 20,000 files of a large drop waiting, the receipt of a small one comes while nine tenths of them are open.
    """
    shared = Storage(tmp_path / "shared", database_url, HANDLERS="handlers_for_processes", TEST_SLOW_SECONDS=0.005)
    large = archive([Member(f"{number // 1000}/slow-{number}.txt", b"%d" % number) for number in range(LARGE)])
    small = archive([Member(f"slow-{number}.txt", b"small %d" % number) for number in range(10)])
    with shared.service() as service:
        shared.drop("large.zip", large)
        (registered,) = wait_for(lambda: service.events("BatchRegistered"), "the large drop's rows")
        shared.drop("small.zip", small)
        told = shared.wait_for_receipt("small.zip")
        with connected(database_url or f"sqlite:///{shared.base}/.inbox/inbox.db") as sessions:
            left = unfinished(sessions, registered["batch_id"])

    assert ("completed", 10) == (told["state"], told["succeeded"])
    assert left >= LARGE * 9 // 10
