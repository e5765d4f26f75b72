"""The operations by name: each one transaction, safe when many call it at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from databases import NOW, fill_batch, lease_it, make_batch

from inbox.core.errors import DatabaseRefusedError, ParseError
from inbox.database.connection import get_session
from inbox.database.models import FileExtraction
from inbox.database.operations import (
    create_file_extraction,
    get_batch_by_id,
    get_batch_files,
    get_batch_statistics,
    get_file_by_doc_id,
    get_or_create_file_extraction,
    increment_retry_count,
    is_batch_already_processed,
    is_file_already_processed,
    mark_batch_completed,
    mark_batch_failed,
    mark_file_failed,
    mark_file_processing_start,
    mark_file_success,
    update_batch_status,
    update_file_status,
)

LATER = NOW + timedelta(seconds=3)


def finish(doc_ids, *, failing=0):
    for number, doc_id in enumerate(doc_ids):
        mark_file_processing_start(doc_id, now=NOW)
        if number < failing:
            mark_file_failed(doc_id, ParseError("broken"), now=LATER)
        else:
            mark_file_success(doc_id, {"n": number}, now=LATER)


def test_missing_rows_are_none(database):
    """
    What is not there is None or False, not an error.
    """
    assert get_batch_by_id("b") is None
    assert get_file_by_doc_id("d") is None
    assert [] == get_batch_files("b")
    assert not is_batch_already_processed("b")
    assert not is_file_already_processed("d")
    assert not mark_file_success("d")
    assert not mark_file_processing_start("d")
    assert mark_batch_completed("b") is None


def test_file_is_created_once(database):
    """
    Creating a file gives it its defaults; creating it again is refused.
    """
    make_batch("b1")
    file = create_file_extraction("d1", "b1", member_path="docs/a.txt")

    assert ("d1", "a.txt", "docs/a.txt", "pending") == (file.doc_id, file.file_name, file.file_path, file.status)
    with pytest.raises(DatabaseRefusedError, match="has its row"):
        create_file_extraction("d1", "b1")


def test_get_or_create_leaves_an_existing_row(database):
    """
    An existing row is returned as it is, whatever defaults come along.
    """
    make_batch("b1")
    get_or_create_file_extraction("d1", {"batch_id": "b1", "size_bytes": 1})
    row, created = get_or_create_file_extraction("d1", {"batch_id": "b1", "size_bytes": 2})

    assert (False, 1) == (created, row.size_bytes)


def test_file_goes_through_an_attempt(database):
    """
    A file is started, counted, and recorded with its result, its times and its duration.
    """
    (doc_id,) = fill_batch("b1", 1)
    started = mark_file_processing_start(doc_id, now=NOW)
    again = mark_file_processing_start(doc_id, now=NOW)
    recorded = mark_file_success(doc_id, {"text": "x"}, now=LATER)
    file = get_file_by_doc_id(doc_id)

    assert (True, False, True) == (started, again, recorded)
    assert ("success", {"text": "x"}, 3000, NOW, LATER) == (
        file.status,
        file.raw_extraction,
        file.processing_duration_ms,
        file.processing_started_at,
        file.processing_completed_at,
    )
    assert is_file_already_processed(doc_id)


def test_failure_keeps_its_reason(database):
    """
    A failure is recorded with the type and the message of the error, or with the words given.
    """
    first, second = fill_batch("b1", 2)
    mark_file_processing_start(first)
    mark_file_processing_start(second)
    mark_file_failed(first, ParseError("broken", subject="a.pdf"))
    mark_file_failed(second, "out of time", error_type="TIMEOUT")

    assert ("failed", "PARSE_ERROR", "broken: a.pdf") == (
        get_file_by_doc_id(first).status,
        get_file_by_doc_id(first).error_type,
        get_file_by_doc_id(first).error_message,
    )
    assert ("TIMEOUT", "out of time") == (
        get_file_by_doc_id(second).error_type,
        get_file_by_doc_id(second).error_message,
    )


def test_outcome_needs_the_lease(database):
    """
    An outcome under another token than the file was started with changes nothing.
    """
    (doc_id,) = fill_batch("b1", 1)
    mark_file_processing_start(doc_id, lease_token="mine")

    assert not mark_file_success(doc_id, lease_token="yours")
    assert not mark_file_failed(doc_id, "no")
    assert mark_file_success(doc_id, lease_token="mine")


def test_success_is_never_left(database):
    """
    A file that succeeded cannot be moved to any other state.
    """
    (doc_id,) = fill_batch("b1", 1)
    finish([doc_id])

    assert not any(update_file_status(doc_id, state) for state in ("pending", "processing", "failed", "retrying"))
    assert not mark_file_processing_start(doc_id)
    assert "success" == get_file_by_doc_id(doc_id).status


def test_status_follows_the_lifecycle(database):
    """
    A state is entered only from where the lifecycle leads there, and a word that is no state is a mistake.
    """
    make_batch("b1")

    assert not update_batch_status("b1", "completed")
    assert not mark_batch_failed("b1", "no")
    lease_it("b1")
    assert "extracting" == get_batch_by_id("b1").status
    with pytest.raises(ValueError, match="odd"):
        update_batch_status("b1", "odd")
    with pytest.raises(ValueError, match="odd"):
        update_file_status("d1", "odd")


def test_unleased_file_may_be_moved_by_hand(database):
    """
    A file that nobody has leased can be ended and offered again by name, as the lifecycle allows.
    """
    (doc_id,) = fill_batch("b1", 1)

    assert update_file_status(doc_id, "failed", now=LATER, error_type="PERMANENT")
    assert LATER == get_file_by_doc_id(doc_id).processing_completed_at
    assert update_file_status(doc_id, "pending")
    assert get_file_by_doc_id(doc_id).processing_completed_at is None
    mark_file_processing_start(doc_id, lease_token="held")
    assert not update_file_status(doc_id, "failed")


@pytest.mark.parametrize(
    ("files", "failing", "verdict", "message"),
    [(3, 0, "completed", None), (3, 1, "partial", "1 of 3 files failed"), (2, 2, "failed", "2 of 2 files failed")],
)
def test_batch_is_closed_by_its_files(database, files, failing, verdict, message):
    """
    A batch whose files have all come to rest is completed, partial or failed, and says how many failed.
    """
    doc_ids = fill_batch("b1", files, skipped=1)
    open_still = mark_batch_completed("b1")
    finish(doc_ids[:files], failing=failing)
    closed = mark_batch_completed("b1", now=LATER)
    batch = get_batch_by_id("b1")

    assert (None, verdict) == (open_still, closed)
    assert (verdict, message, LATER) == (batch.status, batch.error_message, batch.completed_at)
    assert is_batch_already_processed("b1")
    assert mark_batch_completed("b1") is None
    assert (files + 1, 1) == (get_batch_statistics("b1")["members"], get_batch_statistics("b1")["skipped"])


def test_batch_fails_with_its_reason(database):
    """
    A batch that cannot go on is failed with a message and a code.
    """
    make_batch("b1")
    lease_it("b1")

    assert mark_batch_failed("b1", "it broke", reason_code="BROKEN", now=LATER)
    assert ("failed", "it broke", "BROKEN", LATER) == (
        get_batch_by_id("b1").status,
        get_batch_by_id("b1").error_message,
        get_batch_by_id("b1").reason_code,
        get_batch_by_id("b1").completed_at,
    )


def test_retries_are_counted_exactly(database):
    """
    Counts by many callers at once are all different, and none is lost.
    """
    (doc_id,) = fill_batch("b1", 1)
    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(lambda _: increment_retry_count(doc_id), range(30)))

    assert list(range(1, 31)) == sorted(counts)
    assert 30 == get_file_by_doc_id(doc_id).retry_count
    with pytest.raises(DatabaseRefusedError, match="doc_id"):
        increment_retry_count("unknown")


def test_one_of_many_closers_wins(database):
    """
    Of several that close a batch at once, one is told the verdict.
    """
    finish(fill_batch("b1", 2))
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda _: mark_batch_completed("b1"), range(8)))

    assert ["completed"] == [verdict for verdict in verdicts if verdict]


def test_one_of_many_starters_wins(database):
    """
    Of several that start an attempt on a file at once, one does.
    """
    (doc_id,) = fill_batch("b1", 1)
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda n: mark_file_processing_start(doc_id, lease_token=f"{n}"), range(8)))

    assert 1 == sum(started)


def test_operations_take_part_in_a_transaction(database):
    """
    With a session an operation is part of the caller's transaction, and goes with it.
    """
    (doc_id,) = fill_batch("b1", 1)
    with pytest.raises(RuntimeError), get_session() as session:
        mark_file_processing_start(doc_id, session=session)
        mark_file_success(doc_id, session=session)
        assert "success" == get_file_by_doc_id(doc_id, session=session).status
        raise RuntimeError

    assert "pending" == get_file_by_doc_id(doc_id).status


def test_retry_begins_a_counted_attempt(database):
    """
    An attempt on a file that waits for its repetition counts one more retry as it begins.
    """
    (doc_id,) = fill_batch("b1", 1)
    with get_session() as session:
        session.query(FileExtraction).update({"status": "retrying"})
    mark_file_processing_start(doc_id)

    assert 1 == get_file_by_doc_id(doc_id).retry_count
