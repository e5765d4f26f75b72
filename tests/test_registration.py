"""Registration: rows get created once, in one order, and lie in the archive's."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from databases import make_batch
from sqlalchemy import text

from inbox.database.connection import get_session
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
