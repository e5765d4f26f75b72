"""How the database does the work: through the partial indexes, linear in the page, and without touching any index."""

from datetime import timedelta

import pytest
from databases import LIFE, NOW, connected, fill_batch
from sqlalchemy import event, text

from inbox.database import runs, turns, work
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


def make_due_again(database, page):
    values = {"error_type": "TIMEOUT", "due_at": NOW}
    outcomes = [Outcome(file.doc_id, page.token, FileState.RETRYING, NOW, 1, **values) for file in page.files]
    with database.writing() as session:
        work.record_outcomes(outcomes, session=session)


def explain(session, statement, parameters):
    prefix = "EXPLAIN " if session.get_bind().dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    rows = session.connection().exec_driver_sql(prefix + statement, parameters)
    return "\n".join(str(row[-1]) for row in rows)


def find(recorded, *words):
    return next(
        (statement, parameters) for statement, parameters in recorded if all(word in statement for word in words)
    )


def analyse(database):
    with database.writing() as session:
        session.execute(text("ANALYZE"))


@pytest.fixture(params=["stale statistics", "fresh statistics", "statistics of a finished past"])
def backlog(database, request):
    """Pages of due files behind a page of finished ones, and a planner that knows, or does not, or knows better."""
    fill_batch("past", PAGE, now=NOW - LIFE)
    record(database, claim(database))
    if request.param == "statistics of a finished past":
        analyse(database)
    fill_batch("b1", 5 * PAGE)
    if request.param == "fresh statistics":
        analyse(database)
    return request.param


def test_due_files_are_read_in_the_order_of_their_index(database, backlog, recorded):
    """
    A claim reads the first files from the indexes of turns and times; it neither reads the past nor sorts the backlog.
    """
    claim(database, 100)
    with database.writing() as session:
        for statement, _ in list(recorded):
            if statement.startswith("SET LOCAL"):
                session.connection().exec_driver_sql(statement)
        plan = explain(session, *find(recorded, "UPDATE file_extractions"))

    assert "ix_file_extractions_turn" in plan, backlog
    assert "ix_file_extractions_due" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan


def test_group_of_outcomes_is_linear(database, backlog, recorded):
    """
    A group of a thousand outcomes finds its rows by key or hash, never by a loop of the page over the page.
    """
    page = claim(database)
    recorded.clear()
    record(database, page)
    with database.writing() as session:
        plan = explain(session, *find(recorded, "UPDATE file_extractions", "json"))

    by_key = ("uq_file_extractions_doc_id", "sqlite_autoindex_file_extractions_2 (doc_id=?)")
    assert any(name in plan for name in (*by_key, "Hash Cond: ((file_extractions.doc_id)")), backlog
    assert "ix_file_extractions_due" not in plan
    assert "ix_file_extractions_turn" not in plan


def test_files_due_again_are_read_in_the_order_of_their_index(database, backlog, recorded):
    """
    The same holds when the whole backlog is due again.
    """
    make_due_again(database, claim(database, 5 * PAGE))
    recorded.clear()
    held = claim(database, 100)
    with database.writing() as session:
        for statement, _ in list(recorded):
            if statement.startswith("SET LOCAL"):
                session.connection().exec_driver_sql(statement)
        plan = explain(session, *find(recorded, "UPDATE file_extractions"))

    assert 50 == len(held.files)
    assert "ix_file_extractions_due" in plan, backlog
    assert "Sort" not in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan


def test_next_turn_is_one_look_at_an_index(database, backlog, recorded):
    """
    The turn that a new batch begins with is found at the ends of the index of turns.
    """
    with database.writing() as session:
        turns.next_turn(session)
    claim(database, 6 * PAGE)
    with database.writing() as session:
        turns.next_turn(session)
    asked = [one for one in recorded if one[0].startswith("SELECT file_extractions.turn")]
    with database.writing() as session:
        turns.keep_to_indexes(session)
        plans = [explain(session, *one) for one in asked]

    assert len(plans) >= 3
    assert all("ix_file_extractions_turn" in plan for plan in plans), backlog
    assert not any(word in plan for plan in plans for word in ("Sort", "TEMP B-TREE"))


@pytest.mark.parametrize("repeated", [False, True], ids=["first attempt", "due again"])
def test_claims_touch_no_index(database, database_kind, own_statistics, repeated):
    """
    On PostgreSQL a claim is a heap-only update: no index holds a column that it changes, and its page has room.
    """
    if database_kind == "sqlite":
        pytest.skip("SQLite has no heap-only updates")
    fill_batch("b1", PAGE)
    if repeated:
        make_due_again(database, claim(database))
        with database.factory.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM file_extractions"))
    before = own_statistics(database)
    claim(database, PAGE * (1 + repeated))
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
    analyse(database)
    recorded.clear()
    with database.reading() as session:
        runs.find_finished_batches(session=session)
    with database.writing() as session:
        plan = explain(session, *find(recorded, "NOT (EXISTS"))

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
