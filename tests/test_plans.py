"""How the database does the work: through the partial indexes, linear in the page, and without touching any index."""

from datetime import timedelta

import pytest
from databases import LIFE, NOW, connected, fill_batch
from sqlalchemy import event, text

from inbox.database import runs, work
from inbox.domain import Outcome
from inbox.lifecycle import FileState

PAGE = 1000


@pytest.fixture
def recorded(database):
    """Collect every statement, with what was bound to it."""
    seen = []

    def collect(_connection, _cursor, statement, parameters, _context, _many):
        seen.append((statement, parameters))

    engine = database.factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", collect)
    yield seen
    event.remove(engine, "before_cursor_execute", collect)


def claim(database, limit=PAGE):
    with database.writing() as session:
        return work.claim_files("worker", limit=limit, now=NOW, life=LIFE, session=session)


def record(database, page):
    outcomes = [Outcome(file.doc_id, page.token, FileState.SUCCESS, NOW, 1, result={}) for file in page.files]
    with database.writing() as session:
        return work.record_outcomes(outcomes, session=session)


def explain(database, statement, parameters):
    prefix = "EXPLAIN " if database.factory.kw["bind"].dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    with database.writing() as session:
        rows = session.connection().exec_driver_sql(prefix + statement, parameters)
        return "\n".join(str(row[-1]) for row in rows)


def find(recorded, *words):
    return next(
        (statement, parameters) for statement, parameters in recorded if all(word in statement for word in words)
    )


@pytest.mark.parametrize("analysed", [False, True], ids=["stale statistics", "fresh statistics"])
def test_due_files_are_found_by_their_partial_index(database, recorded, analysed):
    """
    A claim reads the index of what is due, and not the finished rows of the past.
    """
    fill_batch("b1", 3 * PAGE)
    record(database, claim(database))
    if analysed:
        with database.writing() as session:
            session.execute(text("ANALYZE"))
    recorded.clear()
    claim(database, 100)
    plan = explain(database, *find(recorded, "UPDATE file_extractions"))

    assert "ix_file_extractions_due" in plan


@pytest.mark.parametrize("analysed", [False, True], ids=["stale statistics", "fresh statistics"])
def test_group_of_outcomes_is_linear(database, database_kind, recorded, analysed):
    """
    A group of a thousand outcomes finds its rows by key or hash, never by a loop of the page over the page.
    """
    if database_kind == "sqlite":
        pytest.skip("SQLite runs one prepared statement by unique key")
    fill_batch("b1", 3 * PAGE)
    if analysed:
        with database.writing() as session:
            session.execute(text("ANALYZE"))
    page = claim(database)
    recorded.clear()
    record(database, page)
    plan = explain(database, *find(recorded, "jsonb_to_recordset", "UPDATE"))

    assert "uq_file_extractions_doc_id" in plan or "Hash Cond: ((file_extractions.doc_id)" in plan


def test_claims_and_outcomes_touch_no_index(database, database_kind, own_statistics):
    """
    On PostgreSQL a claim is a heap-only update: no index holds a column that it changes, and its page has room.
    """
    if database_kind == "sqlite":
        pytest.skip("SQLite has no heap-only updates")
    fill_batch("b1", PAGE)
    before = own_statistics(database)
    claim(database)
    after = own_statistics(database)

    assert PAGE == after["updated"] - before["updated"]
    assert (after["hot"] - before["hot"]) / PAGE > 0.95


@pytest.fixture
def own_statistics():
    def read(database):
        with database.writing() as session:
            session.execute(text("SELECT pg_stat_force_next_flush()"))
        with database.writing() as session:
            session.execute(text("SELECT pg_stat_clear_snapshot()"))
            row = session.execute(
                text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'file_extractions'")
            ).one()
        return {"updated": row[0], "hot": row[1]}

    return read


def test_finished_batches_are_found_without_reading_their_files(database, recorded):
    """
    Whether a batch has unfinished files is asked of the index of unfinished files.
    """
    for number in range(5):
        fill_batch(f"b{number}", 50)
    with database.writing() as session:
        session.execute(text("ANALYZE"))
    recorded.clear()
    with database.reading() as session:
        runs.find_finished_batches(session=session)
    plan = explain(database, *find(recorded, "NOT (EXISTS"))

    assert "ix_file_extractions" in plan or "Anti Join" in plan


def test_statements_do_not_grow_with_the_page(database_url, database_kind):
    """
    A page of a thousand files costs as many statements as a page of ten.
    """
    counts = []
    with connected(database_url) as sessions:
        engine = sessions.factory.kw["bind"]
        fill_batch("b1", 2 * PAGE, now=NOW - timedelta(seconds=1))
        for limit in (10, PAGE):
            seen = []

            def collect(*arguments, seen=seen):
                seen.append(arguments[2])

            event.listen(engine, "before_cursor_execute", collect)
            record(sessions, claim(sessions, limit))
            event.remove(engine, "before_cursor_execute", collect)
            counts.append(len(seen))

    assert counts[0] == counts[1]
