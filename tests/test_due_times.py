"""Due times after a clock was wrong: nothing waits for longer than any rule lets it."""

from datetime import timedelta

import pytest
from databases import fill_batch, make_batch
from pipeline_parts import LIFE

from inbox.core.errors import RateLimitError
from inbox.core.retry import LONGEST_WAIT_SECONDS, delay_after
from inbox.database import batches, leasing, postponing, work
from inbox.database.models import FileExtraction
from inbox.database.operations import get_batch_by_id, get_batch_files
from inbox.database.overdue import SKEW, bring_back
from inbox.domain import Outcome
from inbox.events import BatchOverdue
from inbox.lifecycle import FileState

DAY = timedelta(seconds=LONGEST_WAIT_SECONDS)


def set_back(house, **how):
    house.clock.time -= timedelta(**how)


def swept(house):
    return house.rescuer.bring_back()


def attempt(house, *, wait, duration=timedelta(0), worker="w", error_type="RETRYABLE"):
    """Claim what is due, and record that it is to be retried after `wait`."""
    with house.sessions.writing() as session:
        page = work.claim_files(worker, limit=100, now=house.clock.now(), life=LIFE, session=session)
    house.clock.time += duration
    now = house.clock.now()
    outcomes = [
        Outcome(file.doc_id, page.token, FileState.RETRYING, now, 1, error_type=error_type, due_at=now + wait)
        for file in page.files
    ]
    with house.sessions.writing() as session:
        work.record_outcomes(outcomes, session=session)
        leasing.drop_leases([page.token], session=session)


def waits(house):
    return sorted((file.due_at - house.clock.now()).total_seconds() for file in get_batch_files("b1"))


def test_pending_files_are_due_after_the_clock_was_set_back(house):
    """
    New files that were registered by a clock that was ahead are due at once.
    """
    fill_batch("b1", 3, now=house.clock.now())
    set_back(house, hours=5)

    assert 3 == swept(house)
    assert [0.0] * 3 == waits(house)
    assert 0 == swept(house)


def test_wait_begins_anew_when_its_attempt_lies_in_the_future(house):
    """
    A file to be retried in half a minute, by a clock that was ahead, is retried in half a minute.
    """
    fill_batch("b1", 2, now=house.clock.now())
    attempt(house, wait=timedelta(seconds=20), duration=timedelta(seconds=10))
    set_back(house, hours=5)

    assert 2 == swept(house)
    assert [30.0] * 2 == waits(house)
    assert 0 == swept(house)


def test_long_wish_for_patience_survives_the_sweep(house):
    """
    A server's wish to be left alone for an hour holds, also when the clock was set back meanwhile.
    """
    fill_batch("b1", 1, now=house.clock.now())
    attempt(house, wait=timedelta(hours=1), error_type="RATE_LIMIT")
    legal = swept(house)
    set_back(house, hours=5)

    assert (0, 1, [3600.0]) == (legal, swept(house), waits(house))
    assert 0 == swept(house)


def test_what_was_not_asked_to_wait_does_not(house):
    """
    A clock that jumped ahead during an attempt, and was set back, leaves no file waiting for as long as it jumped.
    """
    fill_batch("b1", 1, now=house.clock.now())
    attempt(house, wait=timedelta(seconds=2), duration=timedelta(hours=5))
    set_back(house, hours=5)

    assert (1, [0.0], 0) == (swept(house), waits(house), swept(house))


def test_nothing_waits_for_more_than_a_day(house):
    """
    A due time that no rule can have written, since the clock was ahead when the attempt ended, is brought back.
    """
    fill_batch("b1", 1, now=house.clock.now())
    attempt(house, wait=timedelta(seconds=2), duration=timedelta(days=400))
    set_back(house, days=400)

    assert (1, [0.0]) == (swept(house), waits(house))


def test_released_files_are_due(house):
    """
    A file to be retried that a worker ahead of us had claimed and given back has waited long enough.
    """
    fill_batch("b1", 1, now=house.clock.now())
    attempt(house, wait=timedelta(seconds=1))
    house.clock.go_on(5)
    with house.sessions.writing() as session:
        page = work.claim_files("w", limit=1, now=house.clock.now(), life=LIFE, session=session)
        work.release_files(page.token, session=session)
    set_back(house, hours=5)

    assert (1, [0.0]) == (swept(house), waits(house))


def put_off(house, wait):
    """Claim what there is, and give it back as a worker does whose handler is paused."""
    with house.sessions.writing() as session:
        page = work.claim_files("w", limit=100, now=house.clock.now(), life=LIFE, session=session)
        due_at = house.clock.now() + wait
        postponing.put_off([(file.doc_id, page.token, due_at) for file in page.files], session=session)


@pytest.mark.parametrize("attempts", [0, 1])
def test_files_of_a_paused_handler_wait(house, attempts):
    """
    What was put off stays so, for as long as anything is; after a clock that was ahead it is due at once.
    """
    fill_batch("b1", 2, now=house.clock.now())
    for _ in range(attempts):
        attempt(house, wait=timedelta(0))
    put_off(house, timedelta(seconds=120))
    legal = swept(house)
    set_back(house, hours=5)

    assert (0, 2, [0.0] * 2) == (legal, swept(house), waits(house))
    assert 0 == swept(house)


@pytest.mark.parametrize("seconds", [0, 30, SKEW.total_seconds()])
def test_small_differences_are_left_alone(house, seconds):
    """
    What clocks of machines may differ by is nobody's business.
    """
    fill_batch("b1", 2, now=house.clock.now())
    set_back(house, seconds=seconds)

    assert (0, [seconds] * 2) == (swept(house), waits(house))


def test_files_in_hand_are_left_alone(house):
    """
    A file that is claimed is not touched, whatever its times say.
    """
    fill_batch("b1", 1, now=house.clock.now())
    with house.sessions.writing() as session:
        work.claim_files("w", limit=1, now=house.clock.now(), life=LIFE, session=session)
    set_back(house, hours=5)

    assert 0 == swept(house)


def test_batch_is_due_after_the_clock_was_set_back(house):
    """
    A batch that waits for its extraction does not wait for hours.
    """
    make_batch("b1", now=house.clock.now())
    make_batch("b2", now=house.clock.now() - timedelta(hours=5) + timedelta(seconds=60), name="other.zip")
    set_back(house, hours=5)

    assert 1 == swept(house)
    assert house.clock.now() == get_batch_by_id("b1").due_at
    with house.sessions.writing() as session:
        assert batches.lease_batch("b1", "w", now=house.clock.now(), life=LIFE, session=session) is not None


def test_many_files_are_brought_back_at_once(house):
    """
    One sweep goes through all pages.
    """
    fill_batch("b1", 2500, now=house.clock.now())
    set_back(house, hours=1)

    assert (2500, 0) == (swept(house), swept(house))


def test_claim_that_comes_between_is_respected(house):
    """
    A file that somebody claims while the sweep is under way stays with its holder.
    """
    fill_batch("b1", 1, now=house.clock.now())
    ahead = house.clock.now()
    set_back(house, hours=1)
    with house.sessions.writing() as session:
        session.query(FileExtraction).update({"lease_token": "t" * 32, "status": "processing", "due_at": ahead})
        session.flush()
        assert 0 == bring_back(now=house.clock.now(), session=session)


@pytest.mark.parametrize("asked", [LONGEST_WAIT_SECONDS * 2, 1e300])
def test_no_wish_for_patience_is_longer_than_a_day(asked):
    """
    Whatever a handler asks for, its file is tried again within a day.
    """
    assert LONGEST_WAIT_SECONDS == delay_after(RateLimitError("busy", retry_after=asked), 1, 2.0)


@pytest.mark.parametrize("hours", [-5, 5])
def test_jump_of_the_clock_ends_no_batch(house, hours):
    """
    A batch is overdue after the time that it was watched for, whatever the clock on the wall says meanwhile.
    """
    with house.instance:
        fill_batch("b1", 1, now=house.clock.now())
        house.rescuing.round()
        house.clock.time += timedelta(hours=hours)
        house.watch_batches(1500)
        early = house.heard(BatchOverdue)
        house.watch_batches(300)

    assert [] == early
    assert 1 == len(house.heard(BatchOverdue))


def test_night_asleep_ends_no_batch(house):
    """
    A service that was stopped for hours counts only a part of them, for in them nobody could work.
    """
    with house.instance:
        fill_batch("b1", 1, now=house.clock.now())
        house.rescuing.round()
        house.clock.go_on(8 * 3600)
        house.rescuing.round()

    assert [] == house.heard(BatchOverdue)
    assert ["pending"] == [file.status for file in get_batch_files("b1")]
