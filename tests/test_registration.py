"""Registration: rows get created once, in one order, and lie in the archive's."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from databases import make_batch
from sqlalchemy import null, text

from inbox.core.errors import DatabaseRefusedError
from inbox.database.connection import get_session
from inbox.database.models import FileExtraction
from inbox.database.operations import get_batch_files, get_or_create_file_extractions

FILES = 2500


def rows(numbers):
    return [
        {"doc_id": f"{number * 7919 % 65536:05x}-{number}", "batch_id": "b1", "position": number} for number in numbers
    ]


def test_files_of_a_page_lie_together(database, database_kind):
    """
    Rows are laid down in the archive's order, whatever their ids are: a page of claims touches few pages of the table.
    """
    make_batch("b1")
    shuffled = rows(range(FILES))
    random.Random(1).shuffle(shuffled)
    get_or_create_file_extractions(shuffled)
    place = "ctid" if database_kind == "postgresql" else "rowid"
    with database.reading() as session:
        positions = list(session.scalars(text(f"SELECT position FROM file_extractions ORDER BY {place}")))

    assert list(range(FILES)) == positions


def test_several_pages_are_one_transaction(database):
    """
    Members of many pages are created together or not at all.
    """
    make_batch("b1")
    with pytest.raises(RuntimeError), get_session() as session:
        get_or_create_file_extractions(rows(range(FILES)), session=session)
        raise RuntimeError

    assert [] == get_batch_files("b1")


def test_overlapping_registrars_do_not_deadlock(database):
    """
    Registrars that bring overlapping pages in opposite orders all come through, and each row is created by one of them.
    """
    make_batch("b1")
    orders = [range(FILES), range(FILES - 1, -1, -1), range(500, FILES), range(FILES - 500)]
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(lambda order: get_or_create_file_extractions(rows(order)), orders))

    assert FILES == sum(map(len, created)) == len(set().union(*created)) == len(get_batch_files("b1"))


def test_known_rows_stay_as_they_are(database):
    """
    A page registered again creates only what is missing, and leaves what has moved on meanwhile alone.
    """
    make_batch("b1")
    get_or_create_file_extractions(rows(range(3)))
    with get_session() as session:
        session.execute(text("UPDATE file_extractions SET status = 'failed', error_message = 'no' WHERE position = 1"))
    created = get_or_create_file_extractions([{**row, "size_bytes": 7} for row in rows(range(4))])
    files = get_batch_files("b1")

    assert {rows([3])[0]["doc_id"]} == created
    assert [("pending", 0), ("failed", 0), ("pending", 0), ("pending", 7)] == [
        (file.status, file.size_bytes) for file in files
    ]
    assert "no" == files[1].error_message


RESULTS = [{"größe": [1, None, 2.5, "日本"]}, ["x"], "text", "null", 7, True, {}, [], None]


def test_every_column_may_be_given(database):
    """
    Rows of one page may bring different columns, JSON of any shape among them; each comes back as it was.
    """
    make_batch("b1")
    at = datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=2)))
    get_or_create_file_extractions(
        [{**row, "raw_extraction": result} for row, result in zip(rows(range(len(RESULTS))), RESULTS, strict=True)]
        + [{**rows([99])[0], "processing_started_at": at, "error_type": "TIMEOUT"}]
    )
    *files, last = get_batch_files("b1")

    assert RESULTS == [file.raw_extraction for file in files]
    assert (at, "TIMEOUT", None) == (last.processing_started_at, last.error_type, last.raw_extraction)
    with database.reading() as session:
        assert 2 == session.query(FileExtraction).filter(FileExtraction.raw_extraction.is_(null())).count()


@pytest.mark.parametrize(
    ("value", "trouble", "match"),
    [
        ({"colour": "red"}, ValueError, "no colour"),
        ({"due_at": datetime(2026, 1, 1)}, DatabaseRefusedError, "without zone"),
    ],
    ids=["unknown column", "time without zone"],
)
def test_nothing_is_dropped_in_silence(database, value, trouble, match):
    """
    A value without a column, or a time that could mean several moments, is a mistake of the caller.
    """
    make_batch("b1")
    with pytest.raises(trouble, match=match):
        get_or_create_file_extractions([{**rows([1])[0], **value}])

    assert [] == get_batch_files("b1")
