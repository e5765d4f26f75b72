"""Retrying in every state of a batch, and beside others: workers, a reporter, another operator, a copied volume."""

import json
import shutil
import threading

import pytest
from databases import LIFE, lease_it, make_batch
from zips import Member, archive

from inbox.core.errors import DatabaseBusyError, PermanentError
from inbox.database import batches, runs, work
from inbox.database.operations import get_batch_by_id, get_batch_files
from inbox.lifecycle import BatchState
from inbox.pipeline.retrying import Retrier
from inbox.utils.volume import Volume

REFUSED = archive([Member("a", flags=1)])


def refused(house, name="drop.zip"):
    """Put a refused archive into quarantine; returns its batch."""
    house.drop(name, data=REFUSED)
    house.take()
    house.closing.round()
    return house.events[0].batch_id


def finished(house, failing, members=("a.txt", "b.txt")):
    house.drop(members=members)
    house.take()
    house.work(failing=failing)
    house.closing.round()
    return house.events[0].batch_id


def shown(batch_id):
    return get_batch_by_id(batch_id).status, [file.status for file in get_batch_files(batch_id)]


@pytest.mark.parametrize("failing", [{"a.txt", "b.txt"}, {"b.txt"}])
def test_whatever_failed_goes_through_again(house, failing):
    """
    Of a failed batch, and of a partial one, exactly what failed is repeated, and the receipt tells of the new run.
    """
    batch_id = finished(house, failing)
    retried = house.retrier.retry("drop.zip")
    house.work(failing={"a.txt"})
    house.closing.round()
    (path,) = house.volume.receipts.glob("*.json")
    told = json.loads(path.read_text())

    assert len(failing) == retried.files
    expected = ("partial", ["failed", "success"]) if "a.txt" in failing else ("completed", ["success"] * 2)
    assert expected == shown(batch_id)
    assert (expected[0], get_batch_by_id(batch_id).run_id) == (told["state"], told["run_id"])


def test_file_that_a_worker_has_in_hand_is_not_retried(house):
    """
    While workers are busy with a batch nothing of it is retried, and what they have in hand stays theirs.
    """
    house.drop(members=("a.txt", "b.txt"))
    house.take()
    with house.sessions.writing() as session:
        page = work.claim_files("worker", limit=1, now=house.clock.now(), life=LIFE, session=session)
    batch_id = page.files[0].batch_id

    for target in ("drop.zip", page.files[0].doc_id):
        with pytest.raises(PermanentError, match="the batch is processing"):
            house.retrier.retry(target)
    assert ("processing", ["processing", "pending"]) == shown(batch_id)


def test_archive_that_is_being_unpacked_is_not_offered_again(house):
    """
    A batch that somebody unpacks is no operator's business.
    """
    make_batch("b1", now=house.clock.now())
    lease_it("b1", now=house.clock.now())

    with pytest.raises(PermanentError, match="the batch is extracting"):
        house.retrier.retry("drop.zip")
    assert "extracting" == get_batch_by_id("b1").status


@pytest.mark.parametrize("kind", ["refused", "failed"])
def test_of_two_operators_one_retries(house, kind):
    """
    Two who say the same at the same time open one run or offer the archive once, and the other one is told.
    """
    batch_id = refused(house) if kind == "refused" else finished(house, {"a.txt", "b.txt"})
    together, said = threading.Barrier(2), []

    def operate():
        together.wait()
        try:
            house.retrier.retry("drop.zip")
            said.append("done")
        except PermanentError as error:
            said.append(error.message)

    operators = [threading.Thread(target=operate) for _ in range(2)]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()

    assert 1 == said.count("done")
    told = next(text for text in said if text != "done")
    assert told.startswith(("somebody else has offered", "nothing has failed there: the batch is"))
    expected = ("received", []) if kind == "refused" else ("processing", ["pending"] * 2)
    assert expected == shown(batch_id)
    assert (["drop.zip"] if kind == "refused" else []) == house.uploads()


def test_second_operator_a_moment_later_is_told(house):
    """
    Who retries what another has just offered again learns it, and not that the archive is lost.
    """
    refused(house)
    batch = stale(house)
    house.retrier.retry("drop.zip")

    with pytest.raises(PermanentError, match="somebody else"):
        house.retrier._retry(batch, None)
    assert ["drop.zip"] == house.uploads()


def stale(house):
    with house.sessions.reading() as session:
        (batch,) = batches.find_batches_of_drops(["drop.zip"], session=session)
    return batch


def test_busy_database_after_the_move_costs_nothing(house, monkeypatch):
    """
    When the database refuses only after the archive was moved, the repetition finds it where it is now.
    """
    batch_id = refused(house)
    offer, failures = runs.offer_again, [DatabaseBusyError("locked")]

    def offer_again(*arguments, **options):
        if failures:
            raise failures.pop()
        return offer(*arguments, **options)

    monkeypatch.setattr(runs, "offer_again", offer_again)
    retried = house.retrier.retry("drop.zip")

    assert (True, "received") == (retried.archive_offered_again, get_batch_by_id(batch_id).status)
    assert ["drop.zip"] == house.uploads()


def test_refused_archive_that_is_not_reported_yet_waits(house):
    """
    Between the refusal and the receipt the archive is about to be moved: it is offered again only afterwards.
    """
    house.drop(data=REFUSED)
    house.take()

    with pytest.raises(PermanentError, match="being reported just now"):
        house.retrier.retry("drop.zip")
    house.closing.round()
    assert house.retrier.retry("drop.zip").archive_offered_again


def test_run_that_begins_while_the_former_is_reported_is_not_lost(house, monkeypatch):
    """
    A reporter that is overtaken by a retry does not mark the new run as reported: it is closed like every other.
    """
    batch_id = finished_unreported(house)
    report = batches.mark_batch_reported

    def retry_first(*arguments, **options):
        monkeypatch.setattr(batches, "mark_batch_reported", report)
        house.retrier.retry("drop.zip")
        return report(*arguments, **options)

    monkeypatch.setattr(batches, "mark_batch_reported", retry_first)
    house.closing.round()
    house.work()
    house.closing.round()
    (path,) = house.volume.receipts.glob("*.json")

    assert ("completed", ["success"] * 2) == shown(batch_id)
    assert get_batch_by_id(batch_id).reported_at is not None
    assert "completed" == json.loads(path.read_text())["state"]
    assert ([], ["drop.zip"]) == (house.uploads(), [path.name for path in house.volume.processed.iterdir()])


def finished_unreported(house):
    house.drop(members=("a.txt", "b.txt"))
    house.take()
    house.work(failing={"a.txt"})
    return house.events[0].batch_id


def test_archive_of_a_moved_volume_is_offered_again(house, tmp_path):
    """
    After the storage was copied elsewhere, with other inodes, a refused archive is offered there as the same batch.
    """
    batch_id = refused(house)
    moved = Volume.at(tmp_path / "elsewhere")
    shutil.copytree(house.volume.base, moved.base, dirs_exist_ok=True)
    shutil.rmtree(house.volume.base)
    retried = Retrier(house.sessions, moved, house.clock).retry("drop.zip")
    house.rescuing.volume = moved
    house.rescuing.round()
    batch = get_batch_by_id(batch_id)

    assert retried.archive_offered_again
    assert (["drop.zip"], "received") == ([path.name for path in moved.uploads.iterdir()], batch.status)
    assert (moved.uploads / "drop.zip").stat().st_ino == batch.archive_inode


def test_archive_that_was_replaced_by_another_is_not_offered(house):
    """
    When another drop of the name is in the uploads and the refused archive is gone, nothing is mistaken for it.
    """
    batch_id = refused(house)
    (house.volume.quarantine / "drop.zip").unlink()
    house.drop(members=("other",))

    with pytest.raises(PermanentError, match="drop it into the uploads again"):
        house.retrier.retry("drop.zip")
    assert BatchState.QUARANTINED == get_batch_by_id(batch_id).status


def test_archive_is_offered_until_it_is_accepted(house):
    """
    A refused archive may be offered again any number of times; each time it is judged, reported and put away anew.
    """
    batch_id = refused(house)
    for _ in range(3):
        house.retrier.retry("drop.zip")
        house.take()
        house.closing.round()

    assert ("quarantined", []) == shown(batch_id)
    assert {"drop.zip", "drop.zip.reason.json"} == {path.name for path in house.volume.quarantine.iterdir()}


def test_archive_offered_while_another_service_reports_it_stays_open(house):
    """
    A report that ends after the archive was offered again marks nothing: the batch is open, and will be taken.
    """
    batch_id = refused(house)
    house.retrier.retry("drop.zip")
    batch = get_batch_by_id(batch_id)
    with house.sessions.writing() as session:
        marked = batches.mark_batch_reported(
            batch_id, run_id=batch.run_id, zip_path="quarantine/drop.zip", now=house.clock.now(), session=session
        )

    assert (False, None) == (marked, get_batch_by_id(batch_id).reported_at)
