"""Every member gets its row once, and a row says whether it may be worked on again."""

import logging
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from databases import connected, make_batch

from inbox.core import idempotency
from inbox.core.errors import WorkerError
from inbox.core.idempotency import (
    detect_stale_processing,
    ensure_idempotent_file,
    ensure_idempotent_files,
    should_reprocess_file,
)
from inbox.database import operations

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Row:
    status: str
    error_type: str | None = None
    retry_count: int = 0
    processing_started_at: datetime | None = None


def test_first_creates_and_second_finds(database, caplog):
    """
    The first call creates the row, the second finds it as it was and logs the duplicate.
    """
    make_batch("b1")
    first, created = ensure_idempotent_file("d1", "b1", {"file_path": "a.txt", "size_bytes": 3})
    with caplog.at_level(logging.INFO, "inbox.idempotency"):
        second, again = ensure_idempotent_file("d1", "b1", {"file_path": "other.txt", "size_bytes": 9})

    assert (True, False) == (created, again)
    assert (first.id, "a.txt", 3) == (second.id, second.file_path, second.size_bytes)
    assert ("b1", "d1") == (caplog.records[0].batch_id, caplog.records[0].doc_id)


def test_page_creates_only_what_is_missing(database, caplog):
    """
    Of a page of members those without a row get one, and the duplicates are counted in one line.
    """
    make_batch("b1")
    infos = [{"doc_id": f"d{number}", "file_path": f"{number}"} for number in range(5)]
    ensure_idempotent_files("b1", infos[:2])
    with caplog.at_level(logging.INFO, "inbox.idempotency"):
        created = ensure_idempotent_files("b1", infos)

    assert {"d2", "d3", "d4"} == created
    assert "2 of 5 files" in caplog.records[0].getMessage()
    assert 5 == len(operations.get_batch_files("b1"))


def test_one_of_many_threads_creates(database):
    """
    Of many threads that ask for one row at once, exactly one creates it.
    """
    make_batch("b1")
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda number: ensure_idempotent_file("d1", "b1", {"file_path": str(number)})[1], range(24))
        )

    assert 1 == sum(made)
    assert 1 == len(operations.get_batch_files("b1"))


def ensure_in_process(url, number):
    with connected(url):
        return ensure_idempotent_file("d1", "b1", {"file_path": str(number)})[1]


def test_one_of_several_processes_creates(database, database_url):
    """
    Of several processes that ask for one row at once, exactly one creates it.
    """
    make_batch("b1")
    with SPAWN.Pool(3) as pool:
        made = pool.starmap(ensure_in_process, [(database_url, number) for number in range(12)])

    assert 1 == sum(made)


def test_store_may_be_handed_in():
    """
    Without a database, any store that keeps the two promises will do; without one, the error says what to do.
    """

    class Store:
        def get_or_create_file_extraction(self, doc_id, defaults, *, session=None):
            return dict(defaults, doc_id=doc_id), True

    row, created = ensure_idempotent_file("d1", "b1", {"size_bytes": 1}, store=Store())

    assert ({"size_bytes": 1, "batch_id": "b1", "doc_id": "d1"}, True) == (row, created)


def test_missing_store_is_explained(monkeypatch):
    """
    Nobody has said where rows are kept: the error says how to.
    """
    monkeypatch.setattr(idempotency, "_store", [])

    with pytest.raises(WorkerError, match="no file store"):
        ensure_idempotent_file("d1", "b1", {})


@pytest.mark.parametrize(
    ("row", "again"),
    [
        (Row("pending"), True),
        (Row("success"), False),
        (Row("skipped"), False),
        (Row("failed", "PERMANENT"), False),
        (Row("failed", "PARSE_ERROR"), False),
        (Row("failed", "UNKNOWN"), False),
        (Row("failed", "RETRYABLE"), True),
        (Row("failed", "RATE_LIMIT", 1), True),
        (Row("failed", "RETRYABLE", 2), False),
        (Row("retrying", "TIMEOUT", 1), True),
        (Row("retrying", "LLM_ERROR", 2), False),
        (Row("processing", processing_started_at=NOW - timedelta(seconds=1801)), True),
        (Row("processing", processing_started_at=NOW - timedelta(seconds=1799)), False),
        (Row("processing", processing_started_at=NOW - timedelta(days=1), retry_count=2), False),
    ],
)
def test_whether_a_file_is_worked_on_again(row, again):
    """
    Succeeded and permanent: no; retryable with attempts left: yes; processing only when stale and with attempts left.
    """
    assert again is should_reprocess_file(row, now=NOW)


def test_attempts_and_time_are_settings():
    """
    How many attempts, and after what time something is stale, is the caller's to say.
    """
    assert should_reprocess_file(Row("failed", "RETRYABLE", 4), max_attempts=6, now=NOW)
    assert should_reprocess_file(
        Row("processing", processing_started_at=NOW - timedelta(seconds=11)), timeout_seconds=10, now=NOW
    )


@pytest.mark.parametrize(
    ("row", "stale"),
    [
        (Row("processing", processing_started_at=NOW - timedelta(seconds=1800)), False),
        (Row("processing", processing_started_at=NOW - timedelta(seconds=1800, microseconds=1)), True),
        (Row("processing", processing_started_at=(NOW - timedelta(hours=1)).replace(tzinfo=None)), True),
        (Row("processing", processing_started_at=NOW + timedelta(hours=1)), False),
        (Row("processing"), True),
        (Row("pending", processing_started_at=NOW - timedelta(days=9)), False),
        (Row("success", processing_started_at=NOW - timedelta(days=9)), False),
    ],
)
def test_staleness(row, stale):
    """
    Only a file in processing can be stale: past its time, or without knowing when it began.
    """
    assert stale is detect_stale_processing(row, now=NOW)


def test_staleness_by_the_clock_on_the_wall():
    """
    Without a time of the caller's, now is now.
    """
    assert not detect_stale_processing(Row("processing", processing_started_at=datetime.now(UTC)))
