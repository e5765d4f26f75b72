"""The legs in their rounds, on a real folder and a real database: from the drop to the shelf between."""

import os

import pytest
from pipeline_parts import House
from zips import STORED, Member, archive

from inbox.core.errors import LeaseLostError, PermanentError, RetryableError, StorageError
from inbox.database.operations import get_batch_by_id, get_batch_files, get_batch_statistics
from inbox.events import (
    BatchClaimed,
    BatchClosed,
    BatchRefused,
    BatchRegistered,
    BatchReleased,
    BatchReported,
    DropLeftAlone,
    DropRecognised,
    DropWaits,
)
from inbox.pipeline.claiming import locked
from inbox.pipeline.runner import unpacking
from inbox.pipeline.runner.closing import is_everything_done


def status(house):
    return get_batch_by_id(house.heard(BatchClaimed)[0].batch_id).status


def test_drop_goes_all_the_way(house):
    """
    A drop becomes a batch, its members rows and files, the batch a receipt, and the archive leaves the uploads.
    """
    house.drop()
    house.take()
    house.work()
    house.closing.round()
    batch_id = house.heard(BatchRegistered)[0].batch_id
    counts = get_batch_statistics(batch_id)

    assert [BatchClaimed, BatchRegistered, BatchClosed, BatchReported] == [type(event) for event in house.events]
    assert (2, 2, 0, 2) == tuple(counts[name] for name in ("members", "files", "skipped", "succeeded"))
    assert all((house.volume.base / file.file_path).is_file() for file in get_batch_files(batch_id))
    assert [] == house.uploads()
    assert is_everything_done(house.sessions)


def test_same_drop_again_does_nothing_twice(house, database):
    """
    After a restart the same archive dropped again is recognised, and no row is touched.
    """
    house.drop()
    house.take()
    house.work()
    house.closing.round()
    before = [(file.id, file.processing_completed_at) for file in get_batch_files(house.events[0].batch_id)]
    restarted = House(database, house.volume, house.clock, owner="host/boot/2/nonce")
    restarted.drop()
    restarted.take()

    assert [DropRecognised] == [type(event) for event in restarted.events]
    assert before == [(file.id, file.processing_completed_at) for file in get_batch_files(house.events[0].batch_id)]


def test_drop_under_way_is_left_alone(house, database):
    """
    A drop whose batch is being worked on is neither read nor reported again, also after a restart.
    """
    house.drop()
    house.take()
    restarted = House(database, house.volume, house.clock, owner="host/boot/2/nonce")
    for _ in range(3):
        house.take()
        restarted.take()

    assert [] == restarted.events
    assert [BatchClaimed, BatchRegistered] == [type(event) for event in house.events]


def test_two_drops_of_one_content_are_one_batch(house):
    """
    The same content under two names at once is one batch, and the second is told as its duplicate.
    """
    house.drop("one.zip")
    house.drop("two.zip")
    house.take()
    house.work()
    house.closing.round()
    house.take()

    assert (1, 1) == (len(house.heard(BatchRegistered)), len(house.heard(DropRecognised)))
    assert [] == house.uploads()


def test_unfinished_drop_waits_and_says_so_once(house):
    """
    A drop that is not whole waits, with one line for each content, and is taken when it is.
    """
    whole = archive(["a.txt"])
    house.drop(data=whole[:40])
    for _ in range(4):
        house.take()
    assert 1 == len(house.heard(DropWaits))
    house.drop(data=whole)
    house.take()
    house.take()

    assert 1 == len(house.heard(BatchRegistered))
    assert {} == house.intake.waiting


def test_damage_in_a_young_drop_is_not_its_fault_yet(house):
    """
    A checksum that does not match in a young drop means that it is still being written; later it is refused.
    """
    good = archive([Member("a", b"some content", STORED)])
    hole = good.replace(b"some content", bytes(12))
    house.drop(data=hole)
    house.take()
    assert [] == house.heard(BatchRefused)
    assert [] == list(house.volume.quarantine.iterdir())
    assert ["BAD_CRC"] == [event.reason_code for event in house.heard(DropWaits)]
    house.clock.go_on(20)
    house.intake.round()
    house.closing.round()

    assert ["BAD_CRC"] == [event.reason_code for event in house.heard(BatchRefused)]
    assert [] == house.uploads()


def test_times_to_come_put_nothing_off(house):
    """
    A drop whose writer set a time that lies in the future is refused, or told that it is not whole, like any other.
    """
    good = archive([Member("a", b"some content", STORED)])
    damaged, short = house.drop(data=good.replace(b"some content", bytes(12))), house.drop("short.zip", good[:-5])
    for path in (damaged, short):
        os.utime(path, (4e9, 4e9))
    house.take()
    refused_young = house.heard(BatchRefused)
    for _ in range(2):
        house.clock.go_on(50_000)
        house.intake.round()

    assert [] == refused_young
    assert ["BAD_CRC"] == [event.reason_code for event in house.heard(BatchRefused)]
    assert ["short.zip.json"] == [path.name for path in house.volume.receipts.iterdir()]


def test_damage_that_was_a_hole_is_filled(house):
    """
    A drop whose hole is filled within the grace is taken as it then is.
    """
    good = archive([Member("a", b"some content", STORED)])
    path = house.drop(data=good.replace(b"some content", bytes(12)))
    house.take()
    path.write_bytes(good)
    house.clock.go_on(20)
    house.take()

    assert [] == house.heard(BatchRefused)
    assert 1 == len(house.heard(BatchRegistered))


def test_hole_is_awaited_however_long(house):
    """
    A damaged drop of which a part was never written waits, with one line, until its writer comes back to fill the hole.
    """
    good = archive([Member("a", b"x" * 300_000, STORED), "b"])
    path = house.volume.uploads / "drop.zip"
    with path.open("wb") as file:
        file.write(good[:100_000])
        file.seek(200_000)
        file.write(good[200_000:])
    for _ in range(3):
        house.take()
        house.clock.go_on(3600)
    waits = house.heard(DropWaits)
    at_rest = house.intake.is_at_rest()
    with path.open("r+b") as file:
        file.seek(100_000)
        file.write(good[100_000:200_000])
    house.take()

    assert ["UNWRITTEN"] == [event.reason_code for event in waits]
    assert at_rest
    assert [] == house.heard(BatchRefused)
    assert 2 == house.heard(BatchRegistered)[0].files


def test_hostile_archive_is_refused_though_it_has_a_hole(house):
    """
    A hole excuses damage, and nothing else.
    """
    path = house.drop(data=archive([Member("../up", b"x" * 300_000, STORED)]))
    data = path.read_bytes()
    with path.open("wb") as file:
        file.write(data[:100_000])
        file.seek(200_000)
        file.write(data[200_000:])
    house.take()

    assert ["UNSAFE_PATH"] == [event.reason_code for event in house.heard(BatchRefused)]


def test_sparse_archive_is_taken(house):
    """
    A whole archive whose zeros are holes, as `cp --sparse` makes it, is taken.
    """
    data = archive([Member("zeros", bytes(300_000), STORED)])
    path = house.volume.uploads / "drop.zip"
    with path.open("wb") as file:
        file.write(data[:100])
        file.seek(290_000)
        file.write(data[290_000:])
    house.take()

    assert 1 == len(house.heard(BatchRegistered))


def test_hostile_archive_is_refused_at_once(house):
    """
    What is the archive's own fault is refused however young the drop is.
    """
    house.drop(data=archive(["../up"]))
    house.take()

    assert ["UNSAFE_PATH"] == [event.reason_code for event in house.heard(BatchRefused)]
    assert "quarantined" == status(house)


def test_what_is_no_archive_is_said_once(house):
    """
    Something that is no archive is reported once and left alone.
    """
    house.drop("note.txt", data=b"note")
    for _ in range(4):
        house.take()

    assert 1 == len(house.heard(DropLeftAlone))
    assert house.intake.is_at_rest()


def test_what_is_no_file_is_said_once(house):
    """
    A folder of archives that was moved in is told as left alone, once for as long as it lies there.
    """
    folder = house.volume.uploads / "folder"
    hidden = house.volume.uploads / ".rsync"
    for path in (folder, hidden):
        path.mkdir()
    for _ in range(3):
        house.take()
    before = [(event.drop, event.reason_code) for event in house.heard(DropLeftAlone)]
    folder.rmdir()
    house.take()
    folder.mkdir()
    house.take()

    assert [("folder", "NOT_A_FILE")] == before
    assert 2 == len(house.heard(DropLeftAlone))
    assert house.intake.is_at_rest()


@pytest.mark.parametrize(
    "error", [StorageError("full", reason_code="DISK_FULL"), RetryableError("stop", reason_code="STOPPED")]
)
def test_trouble_gives_the_batch_back_uncounted(house, monkeypatch, error):
    """
    Trouble outside the archive releases the batch without counting, and it is taken when the trouble is over.
    """

    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(unpacking, "extract", fail)
    house.drop()
    try:
        house.take()
    except StorageError:
        assert isinstance(error, StorageError)
    batch = get_batch_by_id(house.heard(BatchClaimed)[0].batch_id)
    monkeypatch.undo()
    house.clock.go_on(120)
    house.take()

    assert ("received", 0) == (batch.status, batch.attempt_count)
    assert 1 == len(house.heard(BatchReleased)) == len(house.heard(BatchRegistered))


def test_surprise_of_our_own_fails_the_batch(house, monkeypatch):
    """
    An error of ours that another attempt would not mend ends the batch as failed, with its reason.
    """

    def fail(*_arguments, **_options):
        raise PermanentError("odd", reason_code="ODD")

    monkeypatch.setattr(unpacking, "extract", fail)
    house.drop()
    house.take()
    house.closing.round()

    assert "failed" == status(house)
    assert ["drop.zip", "drop.zip.reason.json"] == sorted(os.listdir(house.volume.quarantine))


def test_lost_lease_leaves_the_batch_to_its_holder(house, monkeypatch):
    """
    Whoever lost the batch while unpacking it neither fails nor refuses it.
    """

    def fail(*_arguments, **_options):
        raise LeaseLostError("gone")

    monkeypatch.setattr(unpacking, "extract", fail)
    house.drop()
    house.take()

    assert "extracting" == status(house)
    assert 1 == len(house.heard(BatchReleased))


def test_drop_that_changes_while_read_settles_again(house, monkeypatch):
    """
    A drop that changes under our hands is forgotten and taken when it is quiet again.
    """
    path = house.drop()
    extract = unpacking.extract

    def change_and_extract(*arguments, **options):
        os.utime(path, ns=(1, 1))
        monkeypatch.undo()
        return extract(*arguments, **options)

    monkeypatch.setattr(unpacking, "extract", change_and_extract)
    house.take()
    assert get_batch_by_id(house.heard(BatchClaimed)[0].batch_id) is None
    house.take()
    house.take()

    assert 1 == len(house.heard(BatchRegistered))


def test_locked_drop_is_postponed(house):
    """
    A drop that another service of this volume reads is looked at again soon.
    """
    house.drop()
    with locked(house.volume.locks, "drop.zip"):
        house.take()
        assert [] == house.events
        assert not house.intake.is_at_rest()
    house.clock.go_on(3)
    house.intake.round()

    assert 1 == len(house.heard(BatchRegistered))


def test_stopping_takes_nothing_more(house):
    """
    Asked to stop, the intake takes no further drop.
    """
    house.drop()
    house.intake.should_stop = lambda: True
    house.take()

    assert [] == house.events


def test_service_without_uploads_is_in_trouble(house):
    """
    A volume that vanished is trouble, and no batch is forgotten for it.
    """
    house.volume.uploads.rmdir()

    with pytest.raises(StorageError):
        house.intake.round()


def test_empty_archive_is_complete(house):
    """
    An archive without members is completed by itself.
    """
    house.drop(data=archive([]))
    house.take()
    house.closing.round()

    assert [("completed", 0)] == [(event.state, event.members) for event in house.heard(BatchClosed)]


def test_many_drops_come_in_one_round(house):
    """
    Everything that has settled is taken in one round.
    """
    for number in range(12):
        house.drop(f"{number}.zip", members=[f"{number}.txt"])
    house.take()

    assert 12 == len(house.heard(BatchRegistered))
