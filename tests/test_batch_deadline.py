"""A batch past its time is settled with what it has, whoever is still at it and whether anybody was there to see."""

import pytest
from databases import LIFE
from pipeline_parts import House

from inbox.database import work
from inbox.database.operations import get_batch_by_id, get_batch_files
from inbox.domain import Outcome
from inbox.events import BatchRegistered
from inbox.lifecycle import FileState


def claim(house, limit):
    with house.sessions.writing() as session:
        return work.claim_files("worker", limit=limit, now=house.clock.now(), life=LIFE, session=session)


def record(house, page):
    outcomes = [Outcome(file.doc_id, page.token, FileState.SUCCESS, house.clock.now(), 7) for file in page.files]
    with house.sessions.writing() as session:
        return work.record_outcomes(outcomes, session=session)


@pytest.mark.parametrize(("done", "state"), [(1, "partial"), (0, "failed")])
@pytest.mark.parametrize("is_down", [False, True])
def test_handler_that_is_still_running_comes_too_late(database, house, done, state, is_down):
    """
    At its deadline a batch ends with what is recorded; an outcome that comes later does not count. A service that was
    down meanwhile gives it the whole time once more.
    """
    house.drop()
    house.take()
    batch_id = house.heard(BatchRegistered)[0].batch_id
    if done:
        record(house, claim(house, done))
    page = claim(house, 10)
    if is_down:
        house.clock.go_on(1801)
        house = House(database, house.volume, house.clock, owner="host/boot/2/nonce")
    with house.instance:
        house.watch_batches(2100)
        counted = record(house, page)
        house.closing.round()
    files = get_batch_files(batch_id)

    assert set() == counted
    assert state == get_batch_by_id(batch_id).status
    assert ["TIMEOUT"] * (2 - done) == [file.error_type for file in files if file.status == "failed"]
    assert [] == house.uploads()
