"""Load: what is bound to one statement, held in memory, or read again does not grow with what is dropped."""

import tracemalloc

import pytest
from databases import NOW, fill_batch, lease_it, make_batch
from sqlalchemy import event

from inbox.database import batches, queries
from inbox.domain import Extraction, MemberFile, SkippedMember

MEMBERS = 10_000


def extraction_of(members):
    files = tuple(MemberFile(f"folder/{number}.txt", 10, "a" * 64, number, "text") for number in range(members))
    return Extraction(files, (SkippedMember("__MACOSX/x", "JUNK", 5, members),), 1, 10 * members)


def peak_of(function, *arguments):
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def registered(house):
    """Register batches of two sizes, and return the peak of memory of each registration."""
    peaks = []
    for name, members in (("warm-up", 10), ("small", MEMBERS // 5), ("large", MEMBERS)):
        make_batch(name, now=house.clock.now(), name=f"{name}.zip")
        lease = lease_it(name, owner=house.owner, now=house.clock.now())
        peaks.append(peak_of(house.registrar.register, lease, extraction_of(members)))
    return peaks[1:]


def test_memory_of_registration_does_not_grow_with_the_archive(registered):
    """
    Five times as many members are registered in the same memory.
    """
    small, large = registered

    assert large < 1.5 * small


def test_memory_of_closing_and_reporting_does_not_grow_with_the_archive(house, registered, monkeypatch):
    """
    The summary and the receipt of five times as many members take the same memory.
    """
    monkeypatch.setattr(queries, "_PAGE", 500)
    for _ in range(2 * MEMBERS // 1000):
        house.work()
    peaks = {}
    for batch in house.closing.summariser.find_finished():
        peaks[batch] = peak_of(house.closing.summariser.close, batch)
    for record in house.reporter.find_unreported():
        peaks[f"{record.batch_id} reported"] = peak_of(house.reporter.report, record)

    assert peaks["large"] < 1.5 * peaks["small"]
    assert peaks["large reported"] < 1.5 * peaks["small reported"]


def test_many_known_drops_are_asked_about_in_pages(database):
    """
    However many batches are asked about, no statement binds more than a page of them, and those that exist are found.
    """
    for number in range(3):
        make_batch(f"b{number}", name=f"{number}.zip")
    bound = []
    event.listen(database.factory.kw["bind"], "before_cursor_execute", lambda *given: bound.append(len(given[3])))
    with database.reading() as session:
        known = batches.find_batches([f"b{number}" for number in range(5000)], session=session)
        of_drops = batches.find_batches_of_drops([f"{number}.zip" for number in range(5000)], session=session)

    assert 1000 == max(bound)
    assert {"b0", "b1", "b2"} == known.keys()
    assert ["b0", "b1", "b2"] == sorted(record.batch_id for record in of_drops)


def test_each_page_of_entries_begins_where_the_last_one_ended(database, database_kind, monkeypatch):
    """
    Reading a batch's members page by page enters their index behind the last page, and reads none of them again.
    """
    monkeypatch.setattr(queries, "_PAGE", 100)
    fill_batch("b1", 1000, now=NOW)
    seen = []
    engine = database.factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", lambda *given: seen.append(given[2:4]))
    with database.reading() as session:
        assert 1000 == sum(1 for _ in queries.iterate_entries("b1", session=session))
        statement, values = seen[-1]
        if database_kind == "postgresql":
            session.connection().exec_driver_sql("SET LOCAL enable_sort = off")
            session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
        how = "EXPLAIN " if database_kind == "postgresql" else "EXPLAIN QUERY PLAN "
        plan = "\n".join(str(row[-1]) for row in session.connection().exec_driver_sql(how + statement, values))

    condition = next(line for line in plan.splitlines() if "Cond" in line or "SEARCH" in line)
    assert "position" in condition.replace('"', "")
