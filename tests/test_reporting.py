"""Reporting: the receipt first, then the archive leaves the uploads; each step may be repeated."""

import json
import os

import pytest
from pipeline_parts import House
from zips import Member, archive

from inbox.core.errors import StorageError
from inbox.database.batches import find_batches_of_drops
from inbox.database.operations import get_batch_by_id
from inbox.domain import short_id
from inbox.events import BatchReported, DropQuarantined
from inbox.pipeline import places
from inbox.pipeline.reporting import Reporter


def receipts(house):
    return {path.name: json.loads(path.read_text()) for path in sorted(house.volume.receipts.iterdir())}


def receipt(house):
    (only,) = receipts(house).values()
    return only


def go_through(house, **options):
    house.drop(**options)
    house.take()
    house.work()
    house.closing.round()


def test_what_is_no_archive_may_go_to_quarantine(house):
    """
    By setting it is moved away with its reason, under a name of its own, and the receipt and one line say so.
    """
    house.intake.quarantines_not_archives = True
    for text in (b"a note", b"another"):
        house.drop("note.txt", data=text)
        house.take()
        house.intake.round()

    names = sorted(os.listdir(house.volume.quarantine))
    reason = json.loads((house.volume.quarantine / "note.txt.reason.json").read_text())
    assert [] == house.uploads()
    assert 4 == len(names)
    assert {b"a note", b"another"} == {
        (house.volume.quarantine / name).read_bytes() for name in names if not name.endswith(".json")
    }
    assert ("quarantined", "NOT_AN_ARCHIVE", None) == tuple(
        receipt(house)[field] for field in ("state", "reason_code", "batch_id")
    )
    assert ("NOT_AN_ARCHIVE", "receipts/note.txt.json") == (reason["reason_code"], reason["receipt"])
    assert [("note.txt", "quarantine/note.txt")] == [
        (event.drop, event.archive) for event in house.heard(DropQuarantined)[:1]
    ]
    assert 2 == len(house.heard(DropQuarantined))


def test_receipt_of_what_was_moved_away_stays(house):
    """
    An archive under the name of something that was moved to quarantine before leaves that one's receipt alone.
    """
    house.intake.quarantines_not_archives = True
    house.drop(data=b"a note")
    house.take()
    house.intake.round()
    go_through(house)

    assert ["completed", "quarantined"] == sorted(
        json.loads(path.read_text())["state"] for path in house.volume.receipts.iterdir()
    )


def test_receipt_tells_what_a_name_was_made_of(house):
    """
    Where a path is not what stands in the archive, the entry has the raw bytes and how they were read.
    """
    go_through(house, data=archive(["a\\b.txt", "c.txt"]))

    origins = {entry["path"]: entry.get("name_origin") for entry in receipt(house)["entries"]}

    assert {"a/b.txt": {"raw": b"a\\b.txt".hex(), "encoding": "utf-8"}, "c.txt": None} == origins


def test_receipt_tells_what_became_of_each_member(house):
    """
    The receipt has the counts, and an entry for every member with its path, state, size, hash and reason.
    """
    house.drop(members=["a.txt", "b.txt", "__MACOSX/._a"])
    house.take()
    house.work(failing={"b.txt"})
    house.closing.round()
    ((name, told),) = receipts(house).items()

    assert f"drop.zip.{told['batch_id'][:12]}.json" == name
    assert ("drop.zip", "partial", "FILES_FAILED", "1 of 2 files failed") == (
        told["drop"],
        told["state"],
        told["reason_code"],
        told["reason"],
    )
    assert (1, 3, 2, 1, 1, 1) == tuple(
        told[name] for name in ("schema_version", "members", "files", "skipped", "succeeded", "failed")
    )
    assert [("a.txt", "success", None), ("b.txt", "failed", "PARSE_ERROR"), ("__MACOSX/._a", "skipped", "JUNK")] == [
        (entry["path"], entry["state"], entry.get("reason_code")) for entry in told["entries"]
    ]
    assert (7, 64) == (told["entries"][0]["size_bytes"], len(told["entries"][0]["sha256"]))


@pytest.mark.parametrize(
    ("setting", "uploads", "processed"), [("move", [], ["drop.zip"]), ("delete", [], []), ("keep", ["drop.zip"], [])]
)
def test_archive_of_a_completed_batch_goes_where_it_should(database, house, setting, uploads, processed):
    """
    A finished archive is moved, deleted or left, by setting, and left means not taken again.
    """
    house = House(database, house.volume, house.clock, after_success=setting)
    go_through(house)
    for _ in range(3):
        house.take()

    assert (uploads, processed) == (house.uploads(), os.listdir(house.volume.processed))
    assert "completed" == receipt(house)["state"]


def test_archive_with_failures_is_never_deleted(database, house):
    """
    With deletion set, an archive of which something failed is kept all the same.
    """
    house = House(database, house.volume, house.clock, after_success="delete")
    house.drop()
    house.take()
    house.work(failing={"a.txt"})
    house.closing.round()

    assert ["drop.zip"] == os.listdir(house.volume.processed)


def test_refused_archive_lies_in_quarantine_with_its_reason(house):
    """
    A refused archive is moved unchanged, with its reason and what to do beside it, and the receipt says the same.
    """
    data = archive([Member("a", flags=1)])
    house.drop(data=data)
    house.take()
    house.closing.round()
    told = receipt(house)
    reason = json.loads((house.volume.quarantine / "drop.zip.reason.json").read_text())

    assert data == (house.volume.quarantine / "drop.zip").read_bytes()
    assert ("quarantined", "ENCRYPTED", 0, []) == (told["state"], told["reason_code"], told["members"], told["entries"])
    assert ("ENCRYPTED", told["batch_id"]) == (reason["reason_code"], reason["batch_id"])
    assert "inbox retry" in reason["what_to_do"]


def test_receipt_comes_before_the_archive_leaves(house, monkeypatch):
    """
    Whoever sees the archive gone finds the receipt, which appears as a whole.
    """
    seen = []
    move = places.move_file

    def watch_move(source, target, **how):
        seen.append([name for name in os.listdir(house.volume.receipts) if not name.startswith(".")])
        move(source, target, **how)

    monkeypatch.setattr(places, "move_file", watch_move)
    go_through(house)

    assert [1] == [len(names) for names in seen]


@pytest.mark.parametrize("step", ["_write_receipt", "_archive"])
def test_crash_between_two_steps_is_made_good(house, monkeypatch, step):
    """
    A crash after any step of reporting is only a late report: the next round completes it, once.
    """
    house.drop()
    house.take()
    house.work()
    original = getattr(Reporter, step)

    def crash(self, *arguments):
        original(self, *arguments)
        raise StorageError("power cut")

    monkeypatch.setattr(Reporter, step, crash)
    with pytest.raises(StorageError):
        house.closing.round()
    monkeypatch.undo()
    house.closing.round()
    house.closing.round()

    assert 1 == len(house.heard(BatchReported))
    assert ["drop.zip"] == os.listdir(house.volume.processed)
    assert 1 == len(receipts(house))
    assert get_batch_by_id(receipt(house)["batch_id"]).reported_at is not None


def test_batch_that_cannot_be_reported_holds_up_no_other(house):
    """
    Where something lies in the way of one receipt, that is told after the others have theirs.
    """
    for name in ("first.zip", "second.zip"):
        house.drop(name, members=(f"{name}.txt",))
        house.take()
    house.work()
    with house.sessions.reading() as session:
        (batch,) = find_batches_of_drops(["first.zip"], session=session)
    in_the_way = house.volume.receipts / f"first.zip.{short_id(batch.batch_id)}.json"
    in_the_way.mkdir()
    with pytest.raises(OSError, match="directory"):
        house.closing.round()
    told = [event.drop for event in house.heard(BatchReported)]
    in_the_way.rmdir()
    house.closing.round()

    assert ["second.zip"] == told
    assert ["second.zip", "first.zip"] == [event.drop for event in house.heard(BatchReported)]


def test_same_name_with_other_content_is_kept_apart(house):
    """
    Two different archives of one name both find a place, and both have a receipt.
    """
    go_through(house, members=["one"])
    go_through(house, members=["two"])
    names = os.listdir(house.volume.processed)

    assert "drop.zip" in names
    assert 2 == len(names) == len(receipts(house))


def test_same_content_again_is_a_duplicate(house):
    """
    The same content under another name is told as a duplicate of the first, with every entry, and moved aside.
    """
    go_through(house)
    house.drop("again.zip")
    house.take()
    told = next(told for name, told in receipts(house).items() if name.startswith("again.zip"))

    assert ("duplicate", "DUPLICATE", "drop.zip", "completed", 2) == (
        told["state"],
        told["reason_code"],
        told["duplicate_of"],
        told["batch_state"],
        len(told["entries"]),
    )
    assert [] == house.uploads()


def test_same_drop_three_times_keeps_one_copy(house):
    """
    The same file dropped again and again under one name leaves the first one and one copy, not a heap.
    """
    for _ in range(4):
        go_through(house)

    assert 2 == len(os.listdir(house.volume.processed))
    assert [] == house.uploads()


def test_refused_content_again_goes_to_quarantine_again(house):
    """
    An archive that was refused before is refused again under its code, whatever it is called now.
    """
    data = archive(["../up"])
    for name in ("one.zip", "two.zip"):
        house.drop(name, data=data)
        house.take()
        house.closing.round()

    assert {"quarantined"} == {told["state"] for told in receipts(house).values()}
    assert {"one.zip", "two.zip", "one.zip.reason.json", "two.zip.reason.json"} == set(
        os.listdir(house.volume.quarantine)
    )


@pytest.mark.parametrize("raw", [b"caf\xe9.zip", ("n" * 251).encode() + b".zip", "日本語.zip".encode()])
def test_any_name_gets_its_receipt(house, raw):
    """
    Undecodable names and the longest ones get a receipt and a place like any other.
    """
    go_through(house, name=os.fsdecode(raw))

    assert [] == house.uploads()
    assert 1 == len(receipts(house)) == len(os.listdir(house.volume.processed))
    assert all(len(os.fsencode(name)) <= 255 for name in os.listdir(house.volume.receipts))


def test_drop_that_was_replaced_stays(house):
    """
    A new drop under the name of one that is being processed is not moved away with it, and is taken next.
    """
    house.drop(members=["one"])
    house.take()
    house.drop("other", members=["two"])
    (house.volume.uploads / "other").rename(house.volume.uploads / "drop.zip")
    house.work()
    house.closing.round()
    assert ["drop.zip"] == house.uploads()
    house.take()
    house.work()
    house.closing.round()

    assert [] == house.uploads()
    assert ["completed", "completed"] == [told["state"] for told in receipts(house).values()]


def test_replacement_in_the_very_moment_is_put_back(house, monkeypatch):
    """
    A drop that takes the name just as the old one is moved goes back to the uploads.
    """
    house.drop(members=["one"])
    house.take()
    house.work()
    move, done = places.move_file, []

    def swap_and_move(source, target, **how):
        if not done:
            done.append(1)
            house.drop("other", members=["two"])
            (house.volume.uploads / "other").rename(source)
        move(source, target, **how)

    monkeypatch.setattr(places, "move_file", swap_and_move)
    with pytest.raises(StorageError, match="put back"):
        house.closing.round()

    assert ["drop.zip"] == house.uploads()
    assert [] == os.listdir(house.volume.processed)
    house.closing.round()
    assert 1 == len(house.heard(BatchReported))


def test_what_is_no_archive_has_a_receipt_and_stays(house):
    """
    A drop that is no archive is told so in a receipt, once, and stays where it is.
    """
    house.drop("note.txt", data=b"just a note")
    for _ in range(3):
        house.take()
    ((name, told),) = receipts(house).items()

    assert ("note.txt.json", "incomplete", "NOT_AN_ARCHIVE", None) == (
        name,
        told["state"],
        told["reason_code"],
        told["batch_id"],
    )
    assert ["note.txt"] == house.uploads()
