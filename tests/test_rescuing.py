"""Rescuing: every leased state expires, and whatever its holder left is taken over, charged or not."""

from datetime import timedelta

import pytest
from databases import LIFE, fill_batch, lease_it, make_batch

from inbox.core.errors import RetryableError, StorageError
from inbox.database import batches, leasing, work
from inbox.database.operations import (
    get_batch_by_id,
    get_batch_files,
    mark_file_processing_start,
)
from inbox.domain import InHand
from inbox.events import (
    AttemptFailed,
    AttemptToRepeat,
    BatchForgotten,
    BatchOverdue,
    BatchRefused,
    FilesReleased,
    WorkRescued,
)
from inbox.utils.drops import look_at


def claim(house, owner, files=4):
    fill_batch("b1", files, now=house.clock.now())
    return claim_again(house, owner)


def claim_again(house, owner):
    with house.sessions.writing() as session:
        return work.claim_files(owner, limit=100, now=house.clock.now(), life=LIFE, session=session)


def receive(house, batch_id, path):
    with house.sessions.writing() as session:
        batches.receive_batch(
            batch_id, look_at(path), f"uploads/{path.name}", run_id="r", now=house.clock.now(), session=session
        )


def states():
    return [file.status for file in get_batch_files("b1")]


def rescue(house, *, dead=(), hands=None):
    over = house.observer.over()
    return list(house.rescuer.rescue(over=over, dead_owners=dead, what_was_in_hand=lambda _owner: hands))


def test_living_lease_is_left_alone(house):
    """
    What a living worker holds is nobody else's business.
    """
    claim(house, "other")
    for _ in range(10):
        house.observer.look()
        with house.sessions.writing() as session:
            leasing.extend_leases(["other"], now=house.clock.now(), life=LIFE, session=session)
        house.clock.go_on(10)

    assert [] == rescue(house)
    assert ["processing"] * 4 == states()


def test_only_the_file_in_hand_is_charged(house):
    """
    Of a dead worker's page the file it had in hand has used its attempt, and the others are given back uncounted.
    """
    page = claim(house, "other")
    (rescued,) = rescue(house, dead=["other"], hands=[InHand(page.token, page.files[1].doc_id, 0.0)])
    files = get_batch_files("b1")

    assert (3, 1) == (rescued.released, len(rescued.charged))
    assert ["pending", "retrying", "pending", "pending"] == [file.status for file in files]
    assert "RETRYABLE" == files[1].error_type
    assert house.clock.now() < files[1].due_at


def test_unknown_hand_charges_the_page(house):
    """
    Where nobody can know what was in hand, every claimed file is charged, so that a killer cannot loop for ever.
    """
    claim(house, "elsewhere")
    house.wait_for_beats()
    (rescued,) = rescue(house, hands=None)

    assert (0, 4) == (rescued.released, len(rescued.charged))
    assert ["retrying"] * 4 == states()


def test_nothing_in_hand_charges_nobody(house):
    """
    A worker that died between two files has used no attempt.
    """
    claim(house, "other")
    (rescued,) = rescue(house, dead=["other"], hands=[])

    assert (4, ()) == (rescued.released, rescued.charged)
    assert ["pending"] * 4 == states()


def test_file_that_kills_its_worker_ends_failed(house):
    """
    A file whose every attempt kills the worker is failed after its attempts, and says so.
    """
    fill_batch("b1", 1, now=house.clock.now())
    for _ in range(3):
        house.clock.go_on(60)
        page = claim_again(house, "other")
        rescue(house, dead=["other"], hands=[InHand(page.token, page.files[0].doc_id, 0.0)])
    (file,) = get_batch_files("b1")

    assert ("failed", 2, "RETRYABLE") == (file.status, file.retry_count, file.error_type)
    assert "died" in file.error_message
    house.clock.go_on(600)
    assert () == claim_again(house, "other").files


def test_one_rescuer_decides(house):
    """
    A lease that another service has taken over already is not settled a second time.
    """
    page = claim(house, "other")
    lease = leasing.HeldLease(page.token, "other", house.clock.now() + LIFE)
    error = RetryableError("dead")
    first = house.rescuer.settle(lease, in_hand=[], error=error, owner_is_dead=True)
    second = house.rescuer.settle(lease, in_hand=None, error=error, owner_is_dead=True)

    assert first is not None
    assert second is None
    assert ["pending"] * 4 == states()


def test_paused_worker_finds_its_lease_lost(house):
    """
    A worker that wakes up past its lease can record nothing that was given to another.
    """
    page = claim(house, "paused")
    house.wait_for_beats()
    rescue(house, hands=[])
    again = claim_again(house, "other")
    house.owner = "paused"
    outcomes = [house._outcome(file, {}) for file in page.files]
    with house.sessions.writing() as session:
        counted = work.record_outcomes(outcomes, session=session)

    assert set() == counted
    assert len(again.files) == 4
    assert ["processing"] * 4 == states()


def test_dead_extraction_is_due_again(house):
    """
    An extraction whose holder is gone waits for the next worker at once.
    """
    make_batch("b1", now=house.clock.now())
    lease_it("b1", owner="other", now=house.clock.now())
    rescue(house, dead=["other"], hands=[])

    assert ("received", 1) == (get_batch_by_id("b1").status, get_batch_by_id("b1").attempt_count)


def test_overdue_batch_is_settled_with_what_it_has(house):
    """
    A batch past its time ends its unfinished files as TIMEOUT, and closing settles it.
    """
    with house.instance:
        claim(house, "other", 2)
        house.watch_batches(1800)
        house.closing.round()

    assert [("b1", 2)] == [(event.batch_id, event.files) for event in house.heard(BatchOverdue)]
    assert {"TIMEOUT"} == {file.error_type for file in get_batch_files("b1")}
    assert "failed" == get_batch_by_id("b1").status


def test_overdue_batch_is_ended_in_pages(house, monkeypatch):
    """
    However many files it has, no statement ends more than a page of them, and all are told of as one.
    """
    counts, fail = [], work.fail_unfinished_files

    def fail_some(*arguments, **options):
        counts.append(fail(*arguments, **options, limit=2))
        return counts[-1]

    monkeypatch.setattr(work, "fail_unfinished_files", fail_some)
    with house.instance:
        claim(house, "other", 5)
        house.watch_batches(1800)

    assert [2, 2, 1, 0] == counts
    assert [("b1", 5)] == [(event.batch_id, event.files) for event in house.heard(BatchOverdue)]
    assert ["failed"] * 5 == states()


def test_file_started_by_hand_becomes_stale(house):
    """
    A file that was started without a lease is taken over when it has been in processing for too long.
    """
    (doc_id,) = fill_batch("b1", 1, now=house.clock.now())
    mark_file_processing_start(doc_id, now=house.clock.now())
    early = house.rescuer.rescue_unleased(timeout=timedelta(minutes=30))
    for _ in range(7):
        house.clock.go_on(300)
        late = house.rescuer.rescue_unleased(timeout=timedelta(minutes=30))

    assert (0, 1, ["retrying"]) == (early, late, states())


def test_vanished_drop_is_forgotten(house):
    """
    A batch that nobody extracted yet goes when its drop was taken away, and stays while the drop is there.
    """
    make_batch("b1", now=house.clock.now(), name="gone.zip")
    receive(house, "b2", house.drop("there.zip"))
    with house.instance:
        house.rescuing.round()

    assert ["b1"] == [event.batch_id for event in house.heard(BatchForgotten)]
    assert get_batch_by_id("b1") is None
    assert get_batch_by_id("b2") is not None


def test_round_tells_what_was_rescued(house):
    """
    A round of rescuing announces whom it took over from and what each file came to, and wakes the workers.
    """
    woken = []
    house.rescuing.on_rescued = lambda: woken.append(1)
    claim(house, "elsewhere", 2)
    house.wait_for_beats()
    (house.volume.staging / f"b.{'0' * 32}").mkdir()
    with house.instance:
        house.rescuing.round()
        house.rescuing.round()

    assert [("elsewhere", 0, 2)] == [(event.owner, event.released, event.charged) for event in house.heard(WorkRescued)]
    assert 2 == len(house.heard(AttemptToRepeat))
    assert [1] == woken
    assert [] == list(house.volume.staging.iterdir())


def test_own_dead_worker_is_settled(house):
    """
    What one of our own worker processes held is settled at once, with the error that says how it ended.
    """
    page = claim(house, "me/w0.1", 3)
    error = RetryableError("the worker process ended by SIGSEGV")
    house.rescuing.settle_dead_worker("me/w0.1", in_hand=[InHand(page.token, page.files[0].doc_id, 0.0)], error=error)

    assert ["retrying", "pending", "pending"] == states()
    assert [2] == [event.files for event in house.heard(FilesReleased)]
    assert "SIGSEGV" in house.heard(AttemptToRepeat)[0].error
    assert [] == house.heard(AttemptFailed)


def test_replaced_drop_leaves_no_batch_behind(house):
    """
    A batch whose drop gave way to other content, before anybody extracted it, is forgotten, since nothing can end it.
    """
    path = house.drop()
    receive(house, "b1", path)
    house.drop("other", members=["another.txt"])
    (house.volume.uploads / "other").rename(path)
    with house.instance:
        house.rescuing.round()

    assert ["b1"] == [event.batch_id for event in house.heard(BatchForgotten)]


def test_nothing_is_forgotten_without_the_volume(house):
    """
    When the uploads are not there at all, no drop counts as taken away.
    """
    make_batch("b1", now=house.clock.now())
    house.volume.uploads.rmdir()
    with house.instance, pytest.raises(StorageError):
        house.rescuing.round()

    assert get_batch_by_id("b1") is not None


def test_extraction_that_always_dies_ends_failed(house):
    """
    An archive whose every extraction died is failed after its attempts, and says so.
    """
    make_batch("b1", now=house.clock.now())
    for _ in range(3):
        lease_it("b1", owner="other", now=house.clock.now())
        rescue(house, dead=["other"], hands=[])

    assert ("failed", 3, "EXTRACTION_DIED") == (
        get_batch_by_id("b1").status,
        get_batch_by_id("b1").attempt_count,
        get_batch_by_id("b1").reason_code,
    )


def test_end_of_an_extraction_that_always_dies_is_told(house):
    """
    The round that finds the last attempt dead tells that the archive is refused, as `run --once` has to know.
    """
    receive(house, "b1", house.drop())
    with house.instance:
        for _ in range(3):
            lease_it("b1", owner="elsewhere", now=house.clock.now())
            house.wait_for_beats()
            house.rescuing.round()

    assert ["EXTRACTION_DIED"] == [event.reason_code for event in house.heard(BatchRefused)]


def test_overdue_batch_that_is_done_is_left_to_closing(house):
    """
    A batch past its time whose files have all come to rest is not overdue.
    """
    with house.instance:
        claim(house, "other", 2)
        with house.sessions.writing() as session:
            work.fail_unfinished_files(
                "b1", error_type="PERMANENT", message="m", now=house.clock.now(), session=session
            )
        house.watch_batches(1800)

    assert [] == house.heard(BatchOverdue)
