"""A lock that somebody keeps: it is waited for as long as it saves work, and no longer."""

from datetime import timedelta

from databases import LIFE
from pipeline_parts import Clock

from inbox.database.operations import get_batch_files
from inbox.events import DropRecognised
from inbox.pipeline.claiming import LockedOut, locked


def test_lock_is_waited_for_once_in_a_while():
    """
    The wait is counted for each lock from when it was first met, and begins anew when it was free meanwhile.
    """
    clock = Clock()
    out = LockedOut(clock, patience=timedelta(seconds=10))
    first = out.is_over("a")
    clock.go_on(9)
    early, other = out.is_over("a"), out.is_over("b")
    clock.go_on(1)

    assert (False, False, False, True, False) == (first, early, other, out.is_over("a"), out.is_over("b"))
    out.got("a")
    assert not out.is_over("a")
    clock.go_on(10)
    out.forget_all_but(["a"])
    assert (True, False) == (out.is_over("a"), out.is_over("b"))


def test_drop_whose_lock_is_kept_is_taken_in_the_end(house):
    """
    Where a process that was stopped keeps the lock of a drop, and holds no lease, others take it after a lease's life.
    """
    house.drop()
    with locked(house.volume.locks, "drop.zip"):
        house.take()
        house.clock.go_on(LIFE.total_seconds() - 1)
        house.intake.round()
        early = house.uploads()
        before = house.closing.summariser.find_finished()
        house.clock.go_on(3)
        house.intake.round()
        house.work()
        house.closing.round()

    assert (["drop.zip"], []) == (early, before)
    assert [] == house.uploads()


def test_drop_that_is_being_unpacked_is_left_to_its_holder(house):
    """
    While somebody holds the lease on a drop's batch its lock is respected, however long that takes.
    """
    house.drop()
    with locked(house.volume.locks, "drop.zip"):
        house.take()
        house.taker._is_being_extracted = lambda _drop: True
        house.clock.go_on(LIFE.total_seconds() * 100)
        house.intake.round()

    assert [] == house.events
    assert [] == get_batch_files("b1")


def test_batch_whose_lock_is_kept_is_reported_in_the_end(house):
    """
    Where a process that was stopped while it reported keeps the lock of its batch, others report it after a while.
    """
    house.drop()
    house.take()
    house.work()
    (batch_id,) = house.closing.summariser.find_finished()
    with locked(house.volume.locks, batch_id):
        house.closing.round()
        early = house.uploads()
        house.clock.go_on(LIFE.total_seconds())
        house.closing.round()

    assert (["drop.zip"], []) == (early, house.uploads())


def test_duplicate_of_a_batch_whose_lock_is_kept_is_recognised_in_the_end(house):
    """
    Where a process that was stopped keeps the lock of a batch, who drops its content again is told after a while.
    """
    house.drop()
    house.take()
    house.work()
    (batch_id,) = house.closing.summariser.find_finished()
    house.closing.round()
    house.drop("again.zip")
    with locked(house.volume.locks, batch_id):
        house.take()
        early = house.uploads()
        house.clock.go_on(LIFE.total_seconds())
        house.intake.round()

    assert (["again.zip"], []) == (early, house.uploads())
    assert ["again.zip"] == [event.drop for event in house.heard(DropRecognised)]
