"""Each stage by itself on a volume without a byte or an inode left: it waits, and does its work when there is room."""

import errno
import json
import os

import pytest
from mounts import in_memory
from pipeline_parts import Clock, House
from test_disk_full import Ballast
from zips import Member, archive

from inbox.core.errors import StorageError
from inbox.database.operations import get_batch_by_id
from inbox.events import BatchClaimed, BatchRegistered, BatchReported, DropWaits
from inbox.pipeline.extracting import NoRoomError
from inbox.pipeline.instances import Instance, this_owner
from inbox.utils.volume import Volume


@pytest.fixture(params=["bytes", "inodes"])
def what(request):
    """What will be wanting."""
    return request.param


@pytest.fixture
def full_house(database, tmp_path, what):
    """A service without threads on a volume in memory, with what fills that."""
    options = {"size": "128m"} | ({"nr_inodes": 120} if what == "inodes" else {})
    with in_memory(tmp_path / "shared", **options) as base:
        house = House(database, Volume.at(base), Clock())
        house.ballast = Ballast(base)
        yield house


def waits(house, action, what):
    """Do this on a full volume and return what it raises, then make room."""
    house.ballast.fill(what)
    try:
        with pytest.raises(StorageError) as trouble:
            action()
    finally:
        house.ballast.remove()
    house.clock.go_on(600)
    return trouble.value


def receipts(house):
    return {path.name: json.loads(path.read_text()) for path in house.volume.receipts.iterdir()}


def leftovers(house):
    """Return every file that somebody only meant to write."""
    found = [path for path in house.volume.base.rglob(".*") if path.is_file()]
    return [*found, *house.volume.staging.iterdir(), *house.volume.locks.iterdir()]


def test_unpacking_waits_for_room(full_house, what):
    """
    Without room a batch is given back uncounted, or not claimed at all, and nothing of it is left; then it is taken.
    """
    full_house.drop(members=[f"{n}.txt" for n in range(20)])
    full_house.intake.round()
    full_house.clock.go_on(2)
    waits(full_house, full_house.intake.round, what)
    between = leftovers(full_house), os.listdir(full_house.volume.extracted)
    full_house.intake.round()

    assert ([], [".staging"]) == between
    assert 1 == len(full_house.heard(BatchRegistered))
    assert 1 == get_batch_by_id(full_house.heard(BatchClaimed)[0].batch_id).attempt_count


def test_receipt_and_move_wait_for_room(full_house, what):
    """
    Without room there is no receipt, not half a one either, and the archive stays; then both are as they should be.
    """
    full_house.drop()
    full_house.take()
    full_house.work()
    waits(full_house, full_house.closing.round, what)
    between = receipts(full_house), full_house.uploads(), leftovers(full_house)
    full_house.closing.round()

    assert ({}, ["drop.zip"], []) == between
    assert ["completed"] == [told["state"] for told in receipts(full_house).values()]
    assert ["drop.zip"] == os.listdir(full_house.volume.processed)
    assert 1 == len(full_house.heard(BatchReported))


def test_quarantine_waits_for_room(full_house, what):
    """
    So do a refused archive and its reason.
    """
    full_house.drop(data=archive([Member("../evil.txt", b"x")]))
    full_house.take()
    waits(full_house, full_house.closing.round, what)
    full_house.closing.round()

    assert ["quarantined"] == [told["state"] for told in receipts(full_house).values()]
    assert ["drop.zip", "drop.zip.reason.json"] == sorted(os.listdir(full_house.volume.quarantine))
    assert [] == leftovers(full_house)


def test_duplicate_waits_for_room(full_house, what):
    """
    A duplicate is told and moved as soon as its receipt finds room.
    """
    full_house.drop("a.zip")
    full_house.take()
    full_house.work()
    full_house.closing.round()
    full_house.drop("b.zip")
    full_house.intake.round()
    full_house.clock.go_on(2)
    waits(full_house, full_house.intake.round, what)
    between = full_house.uploads()
    full_house.intake.round()

    assert ["b.zip"] == between
    assert ["completed", "duplicate"] == sorted(told["state"] for told in receipts(full_house).values())
    assert [] == full_house.uploads()


def test_incomplete_drop_is_told_when_there_is_room(full_house, what):
    """
    The receipt of a drop that will hardly become whole waits for room as well.
    """
    full_house.drop(data=archive(["a"])[:-5])
    full_house.intake.round()
    full_house.clock.go_on(86_500)
    waits(full_house, full_house.intake.round, what)
    between = receipts(full_house)
    full_house.intake.round()

    assert {} == between
    assert ["incomplete"] == [told["state"] for told in receipts(full_house).values()]
    assert 1 == len(full_house.heard(DropWaits))


def test_mark_of_life_waits_for_room(full_house, what):
    """
    A service that cannot mark itself as alive leaves no half mark, and can try again.
    """
    instance = Instance(full_house.volume.instances, this_owner(), workers=2)
    waits(full_house, instance.__enter__, what)
    between = os.listdir(full_house.volume.instances)
    with instance:
        marks = len(os.listdir(full_house.volume.instances))

    assert [] == between
    assert 2 == marks


def test_archive_that_found_no_inodes_is_not_read_before_there_are_enough(house, monkeypatch):
    """
    What is wanting, bytes or inodes, is asked of the volume before an archive is read once more.
    """
    status = os.statvfs(house.volume.extracted)
    wants = NoRoomError(1, "inodes", needed_inodes=status.f_favail + 1000)

    assert not wants.is_over(house.volume.extracted)
    assert NoRoomError(1, "inodes", needed_inodes=1).is_over(house.volume.extracted)
    assert not NoRoomError(1 << 62, "bytes", needed_inodes=1).is_over(house.volume.extracted)


def test_archive_that_a_quota_kept_out_is_tried_rarely(house, monkeypatch):
    """
    No figure of the volume tells of a quota: such an archive is read again after minutes, however often it fails.
    """
    tries = []

    def refuse(*_arguments):
        tries.append(1)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("inbox.pipeline.extracting.Reservation", refuse)
    house.drop()
    house.intake.round()
    house.clock.go_on(2)
    for _ in range(60):
        with pytest.raises(NoRoomError):
            house.intake.round()
        house.clock.go_on(10)

    assert 2 == len(tries)
