"""Reporting, interrupted and repeated: no step is lost, and no drop that came meanwhile is touched."""

import json
import os

import pytest
from pipeline_parts import House
from zips import Member, archive

from inbox.core.errors import PermanentError, StorageError
from inbox.database.operations import get_batch_by_id
from inbox.events import BatchReported, DropRecognised
from inbox.pipeline import places, reporting
from inbox.pipeline.runner import unpacking

ENCRYPTED = archive([Member("a", flags=1)])


def receipts(house):
    return {path.name: json.loads(path.read_text()) for path in sorted(house.volume.receipts.iterdir())}


def work_and_close(house):
    house.work()
    house.closing.round()


def crash_in(monkeypatch, module, name, *, after):
    """Let the power go just before or just after a step."""
    step = getattr(module, name)

    def crash(*arguments, **options):
        if after:
            step(*arguments, **options)
        raise StorageError("power cut")

    monkeypatch.setattr(module, name, crash)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["move_aside", "safe_write_file"])
def test_crash_in_quarantining_is_made_good(house, monkeypatch, step, after):
    """
    Whenever the power goes, archive and reason lie in quarantine after the next round, and a retry finds the archive.
    """
    house.drop(data=ENCRYPTED)
    house.take()
    crash_in(monkeypatch, reporting, step, after=after)
    with pytest.raises(StorageError):
        house.closing.round()
    monkeypatch.undo()
    house.closing.round()
    (event,) = house.heard(BatchReported)

    assert ["drop.zip", "drop.zip.reason.json"] == sorted(os.listdir(house.volume.quarantine))
    assert "quarantine/drop.zip" == event.archive == get_batch_by_id(event.batch_id).zip_path
    assert house.retrier.retry("drop.zip").archive_offered_again


@pytest.mark.parametrize(("setting", "left"), [("move", ["drop.zip"]), ("delete", [])])
def test_crash_after_the_move_is_made_good(database, house, monkeypatch, setting, left):
    """
    After a crash between the move and its record the archive is found again, and recorded or deleted, by setting.
    """
    house = House(database, house.volume, house.clock, after_success=setting)
    house.drop()
    house.take()
    house.work()
    crash_in(monkeypatch, reporting, "move_aside", after=True)
    with pytest.raises(StorageError):
        house.closing.round()
    monkeypatch.undo()
    house.closing.round()

    assert left == os.listdir(house.volume.processed)
    assert [f"processed/{name}" for name in left] == [
        event.archive for event in house.heard(BatchReported) if event.archive
    ]


def test_drop_that_comes_in_the_moment_of_deletion_is_kept(database, house, monkeypatch):
    """
    With deletion set, new content that takes the name at the last moment is put back and never deleted.
    """
    house = House(database, house.volume, house.clock, after_success="delete")
    house.drop()
    house.take()
    move = places.move_file
    other = house.drop("other", members=["other"])

    def replace_and_move(source, target, **how):
        monkeypatch.setattr(places, "move_file", move)
        other.rename(source)
        move(source, target, **how)

    monkeypatch.setattr(places, "move_file", replace_and_move)
    house.work()
    with pytest.raises(StorageError, match="put back"):
        house.closing.round()
    house.closing.round()

    assert ["drop.zip"] == house.uploads()
    assert archive(["other"]) == (house.volume.uploads / "drop.zip").read_bytes()


@pytest.mark.parametrize("setting", ["move", "delete"])
def test_drop_that_is_put_back_after_its_report_is_recognised(database, house, setting):
    """
    The very file of a finished batch, taken away meanwhile and put back, is told as a duplicate and leaves again.
    """
    house = House(database, house.volume, house.clock, after_success=setting)
    path = house.drop()
    house.take()
    path.rename(house.volume.base / "aside")
    work_and_close(house)
    (house.volume.base / "aside").rename(path)
    for _ in range(2):
        house.take()

    assert 1 == len(house.heard(DropRecognised))
    assert [] == house.uploads()


def test_kept_archives_stay_untouched_after_a_restart(database, house):
    """
    What was left in the uploads by setting is left after a restart too, also when the setting is another one then.
    """
    keeping = House(database, house.volume, house.clock, after_success="keep")
    keeping.drop()
    keeping.take()
    work_and_close(keeping)
    before = receipts(keeping)
    for setting in ("keep", "move", "delete"):
        again = House(database, house.volume, house.clock, owner=f"host/boot/{setting}/n", after_success=setting)
        again.take()
        again.closing.round()
        assert [] == again.events

    assert ["drop.zip"] == keeping.uploads()
    assert before == receipts(keeping)


def test_new_run_reports_and_leaves_the_archive_where_it_is(house):
    """
    A run that an operator opened writes the receipt anew and names the archive where it has been since the first.
    """
    house.drop()
    house.take()
    house.work(failing={"a.txt"})
    house.closing.round()
    house.retrier.retry("drop.zip")
    work_and_close(house)

    assert ["completed"] == [told["state"] for told in receipts(house).values()]
    assert ["processed/drop.zip"] * 2 == [event.archive for event in house.heard(BatchReported)]


def test_content_that_could_not_be_unpacked_is_refused_again(house, monkeypatch):
    """
    A drop of content that failed before any member was written goes to quarantine like the first, with its reason.
    """

    def fail(*_arguments, **_options):
        raise PermanentError("odd", reason_code="ODD")

    monkeypatch.setattr(unpacking, "extract", fail)
    for name in ("one.zip", "two.zip"):
        house.drop(name)
        house.take()
        house.closing.round()

    assert [("failed", "ODD")] * 2 == [(told["state"], told["reason_code"]) for told in receipts(house).values()]
    assert {"one.zip", "two.zip", "one.zip.reason.json", "two.zip.reason.json"} == set(
        os.listdir(house.volume.quarantine)
    )


def test_kept_duplicate_is_told_once(database, house):
    """
    With archives left in place, a duplicate under another name is told so once and then left alone.
    """
    keeping = House(database, house.volume, house.clock, after_success="keep")
    keeping.drop()
    keeping.take()
    work_and_close(keeping)
    keeping.drop("again.zip")
    for _ in range(4):
        keeping.take()

    assert 1 == len(keeping.heard(DropRecognised))
    assert ["again.zip", "drop.zip"] == keeping.uploads()
