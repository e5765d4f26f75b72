"""The intake in trouble: nothing is held for ever, nothing holds up the rest, and the dropper is told."""

import json
import os

import pytest
from pipeline_parts import QUIET, House
from zips import STORED, Member, archive

from inbox.core.errors import ArchiveRefusedError, DatabaseUnavailableError, StorageError
from inbox.database import batches, leasing
from inbox.database.operations import get_batch_by_id
from inbox.events import BatchClaimed, BatchRefused, BatchRegistered, BatchReleased
from inbox.pipeline import settling
from inbox.pipeline.extracting import NoRoomError
from inbox.pipeline.runner import unpacking


def batch(house, number=0):
    return get_batch_by_id(house.heard(BatchClaimed)[number].batch_id)


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def receipts(house):
    return {path.name: json.loads(path.read_text()) for path in house.volume.receipts.iterdir()}


@pytest.fixture
def gone_database(house, monkeypatch):
    """Once a drop is claimed, the database answers neither its registration nor its release, until this is undone."""
    error = DatabaseUnavailableError("the database does not answer")
    monkeypatch.setattr(house.registrar, "register", raising(error))
    monkeypatch.setattr(batches, "release_batch", raising(error))
    house.drop()
    with pytest.raises(DatabaseUnavailableError):
        house.take()
    return monkeypatch


def test_claim_that_the_database_kept_is_given_back(house, gone_database):
    """
    A batch that was in hand when the database went is taken up again, uncounted, though the heartbeat kept its lease.
    """
    before = batch(house)
    gone_database.undo()
    with house.sessions.writing() as session:
        leasing.extend_leases([house.owner], now=house.clock.now(), life=QUIET * 1000, session=session)
    house.intake.round()

    assert ("extracting", 1) == (before.status, before.attempt_count)
    assert ("processing", 1) == (batch(house).status, batch(house).attempt_count)
    assert 1 == len(house.heard(BatchRegistered)) == len(house.heard(BatchReleased))


def test_drop_that_cannot_be_looked_at_holds_up_no_other(house, monkeypatch):
    """
    Where the volume does not let go of one drop, that is told after the others had their turn, old and new.
    """
    look_inside = settling.look_inside

    def look(drop):
        if drop.name == "bad.zip":
            raise StorageError("Input/output error")
        return look_inside(drop)

    monkeypatch.setattr(settling, "look_inside", look)
    for number, name in enumerate(("bad.zip", "good.zip")):
        os.utime(house.drop(name, members=[name]), (number + 1, number + 1))
    for _ in range(2):
        with pytest.raises(StorageError, match="Input/output error"):
            house.take()
    told = [event.drop for event in house.heard(BatchRegistered)]
    monkeypatch.undo()
    house.intake.round()

    assert ["good.zip"] == told
    assert ["good.zip", "bad.zip"] == [event.drop for event in house.heard(BatchRegistered)]


def test_registration_that_counted_all_the_same_stands(house, monkeypatch):
    """
    When only the answer to the commit was lost, the next round takes nothing back and wakes the workers.
    """
    register, woken = house.registrar.register, []

    def register_and_lose_the_answer(*arguments):
        register(*arguments)
        raise DatabaseUnavailableError("the connection broke")

    monkeypatch.setattr(house.registrar, "register", register_and_lose_the_answer)
    house.drop()
    house.take()
    monkeypatch.undo()
    house.intake.on_registered = lambda: woken.append(1)
    house.clock.go_on(600)
    house.intake.round()

    assert "processing" == batch(house).status
    assert 1 == len(house.heard(BatchClaimed))


def test_surprise_fails_its_batch_alone(house, monkeypatch, caplog):
    """
    An error that nobody foresaw ends its batch with a reason and a traceback in the log; the next drop is taken.
    """
    extract = unpacking.extract

    def fail_once(*arguments, **options):
        monkeypatch.setattr(unpacking, "extract", extract)
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(unpacking, "extract", fail_once)
    house.drop("a.zip")
    os.utime(house.volume.uploads / "a.zip", (1, 1))
    house.drop("b.zip", members=["b"])
    house.take()
    states = sorted(batch(house, number).status for number in range(2))

    assert ["failed", "processing"] == states
    assert [("SURPRISE", "ZeroDivisionError: odd")] == [
        (event.reason_code, event.reason) for event in house.heard(BatchRefused)
    ]
    assert "Traceback" in caplog.text


def test_refusal_after_the_lease_was_lost_does_not_count(house, monkeypatch):
    """
    Whoever lost the batch while it judged the archive refuses nothing, and does not say so either.
    """

    def lose_and_refuse(_fd, _drop, lease, *_arguments, **_options):
        with house.sessions.writing() as session:
            batches.rescue_batch(lease.token, max_attempts=3, now=house.clock.now(), session=session)
        raise ArchiveRefusedError("ENCRYPTED", "it is encrypted")

    monkeypatch.setattr(unpacking, "extract", lose_and_refuse)
    house.drop()
    house.take()

    assert [] == house.heard(BatchRefused)
    assert ["another worker has taken the batch over"] == [event.reason for event in house.heard(BatchReleased)]
    assert "received" == batch(house).status


def test_drop_too_big_for_the_room_waits_for_it_alone(house, monkeypatch):
    """
    Without room for one drop the others are taken, the trouble lasts, as one, until there is room, and nothing is read
    again meanwhile.
    """
    extract, looks = unpacking.extract, []

    def extract_small(fd, drop, *arguments, **options):
        if drop.name == "big.zip":
            looks.append(drop.name)
            raise NoRoomError(1 << 62, "so much")
        return extract(fd, drop, *arguments, **options)

    monkeypatch.setattr(unpacking, "extract", extract_small)
    house.drop("big.zip", members=["big"])
    os.utime(house.volume.uploads / "big.zip", (1, 1))
    house.drop("small.zip", members=["small"])
    house.intake.round()
    house.clock.go_on(2)
    errors = []
    for _ in range(3):
        with pytest.raises(StorageError) as trouble:
            house.intake.round()
        errors.append(trouble.value)
        house.clock.go_on(60)
    registered = [event.drop for event in house.heard(BatchRegistered)]
    monkeypatch.setattr(NoRoomError, "is_over", lambda *_: True)
    monkeypatch.setattr(unpacking, "extract", extract)
    house.clock.go_on(60)
    house.intake.round()

    assert ["small.zip"] == registered
    assert ["big.zip"] == looks
    assert 1 == len({id(error) for error in errors})
    assert ["small.zip", "big.zip"] == [event.drop for event in house.heard(BatchRegistered)]


@pytest.fixture
def crowded(house, monkeypatch):
    """A house with a drop that found no room, after which there would be some."""
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "extract", raising(NoRoomError(1 << 62, "so much")))
        house.drop()
        with pytest.raises(NoRoomError):
            house.take()
    house.clock.go_on(600)
    return house


def test_want_of_room_ends_when_another_service_took_the_drop(crowded):
    """
    A drop that another service has unpacked, and left where it is, lacks no room any more.
    """
    other = House(crowded.sessions, crowded.volume, crowded.clock, owner="other/boot/1/nonce", after_success="keep")
    other.take()
    other.work()
    other.closing.round()
    crowded.intake.round()

    assert ["drop.zip"] == crowded.uploads()


def test_want_of_room_ends_when_the_drop_is_not_whole_any_more(crowded):
    """
    A drop that was replaced by a copy under way lacks its end, and no room.
    """
    crowded.drop(data=archive(["a"])[:-5])
    with pytest.raises(NoRoomError):
        crowded.intake.round()
    crowded.clock.go_on(600)
    crowded.intake.round()

    assert {"drop.zip"} == set(crowded.intake.waiting)


def test_lasting_trouble_is_tried_less_and_less_often(house, monkeypatch):
    """
    Each setback in a row makes the next attempt come later.
    """
    monkeypatch.setattr(unpacking, "extract", raising(StorageError("read-only")))
    monkeypatch.setattr(unpacking, "calculate_backoff", float)
    house.drop()
    house.intake.round()
    house.clock.go_on(2)
    waits = []
    for _ in range(7):
        with pytest.raises(StorageError):
            house.intake.round()
        waits.append(house.intake.next_look_in())
        house.clock.go_on(waits[-1])

    assert [1, 2, 3, 4, 5, 5, 5] == waits
    assert 0 == batch(house).attempt_count


def test_stop_while_a_drop_is_read_is_no_trouble(house):
    """
    Asked to stop in the middle of reading a drop, the round ends in peace and nothing is claimed.
    """
    house.drop()
    house.intake.round()
    house.clock.go_on(2)
    answers = iter([False])
    house.intake.should_stop = lambda: next(answers, True)
    house.intake.round()

    assert [] == house.events


def test_stop_while_what_is_no_archive_is_read_is_no_trouble(house):
    """
    Asked to stop in the middle of reading what is to be moved to quarantine, the round ends and it stays.
    """
    house.drop("notes.txt", b"no archive at all")
    house.intake.quarantines_not_archives = True
    house.intake.round()
    house.clock.go_on(2)
    answers = iter([False])
    house.intake.should_stop = lambda: next(answers, True)
    house.intake.round()

    assert [] == house.events
    assert ["notes.txt"] == house.uploads()


def test_stalled_copy_has_a_receipt_until_it_is_whole(house):
    """
    A drop that is not whole for a day is told as incomplete, and that receipt goes when it is taken after all.
    """
    whole = archive([Member("a", b"some content", STORED)])
    house.drop(data=whole[:-5])
    house.take()
    assert {} == receipts(house)
    house.clock.go_on(86_400)
    house.take()
    waiting = receipts(house)
    house.drop(data=whole)
    house.take()
    house.work()
    house.closing.round()

    assert [("drop.zip.json", "incomplete", "NO_END_RECORD")] == [
        (name, told["state"], told["reason_code"]) for name, told in waiting.items()
    ]
    assert ["completed"] == [told["state"] for told in receipts(house).values()]


def test_receipt_that_could_not_be_written_is_tried_again(house, monkeypatch):
    """
    When the volume does not take the receipt of a stalled copy, the next round writes it.
    """
    house.drop(data=archive(["a"])[:-5])
    house.intake.round()
    house.clock.go_on(86_500)
    with monkeypatch.context() as patch:
        patch.setattr("inbox.pipeline.reporting.safe_write_file", raising(StorageError("full")))
        with pytest.raises(StorageError):
            house.intake.round()
    house.intake.round()

    assert ["drop.zip.json"] == list(receipts(house))


def test_name_that_no_database_stores_is_refused_all_the_same(house):
    """
    An archive whose name for a member holds NUL ends in quarantine, with its reason in the row.
    """
    house.drop(data=archive(["a.txt\0.exe"]))
    house.take()

    assert "quarantined" == batch(house).status
    assert "a.txt\\x00.exe" in batch(house).error_message
    assert ["NUL_IN_NAME"] == [event.reason_code for event in house.heard(BatchRefused)]


def test_size_that_no_database_stores_is_refused(house):
    """
    So does one whose member, though only skipped, declares a size that no column holds.
    """
    house.drop(data=archive([Member("a", b"", method=99, zip64=True, size=(1 << 64) - 1)]))
    house.take()

    assert ["BAD_ZIP64"] == [event.reason_code for event in house.heard(BatchRefused)]
    assert "quarantined" == batch(house).status
