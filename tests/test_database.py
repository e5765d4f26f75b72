"""The database: models and relationships, transactions, queries, and what its errors mean."""

import traceback
import uuid
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import sqlalchemy.exc
from databases import NOW, connected, fill_batch, make_batch
from sqlalchemy import text

from inbox.core.errors import (
    ConfigurationError,
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
)
from inbox.database import connection, queries
from inbox.database.connection import create_engine, get_session, retry_when_busy, test_connection, translate
from inbox.database.models import FileExtraction, ProcessingJob, RunSummary
from inbox.database.operations import create_or_update_run_summary, get_batch_by_id
from inbox.database.types import new_id


def settings(url, *, connections=2, timeout=5.0):
    return SimpleNamespace(database_url=url, database_max_connections=connections, database_timeout=timeout)


def test_rows_of_all_tables_come_back(database):
    """
    What is stored in the three tables is read back, with times in UTC and JSON as it was.
    """
    elsewhere = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    with get_session() as session:
        session.add(ProcessingJob(batch_id="b1", zip_path="uploads/a.zip", run_id="r1", created_at=elsewhere))
        session.flush()
        session.add(FileExtraction(doc_id="d1", batch_id="b1", raw_extraction={"größe": [1, None, "日本"]}))
        session.add(RunSummary(run_id="r1", ui_json={"a": 1}, nested_summary={"b": {}}, file_count=1))
    with get_session() as session:
        job = session.query(ProcessingJob).one()
        file = session.query(FileExtraction).one()
        summary = session.query(RunSummary).one()

    assert (datetime(2026, 1, 1, 12, tzinfo=UTC), "received", 0) == (job.created_at, job.status, job.total_files)
    assert ({"größe": [1, None, "日本"]}, "pending", 0) == (file.raw_extraction, file.status, file.retry_count)
    assert ({"a": 1}, {"b": {}}, 1) == (summary.ui_json, summary.nested_summary, summary.file_count)
    assert all(isinstance(row.id, uuid.UUID) for row in (job, file, summary))


def test_job_knows_its_files_and_they_know_it(database):
    """
    A batch leads to its files in the archive's order, each file back to the batch, and they go with it.
    """
    fill_batch("b1", 3)
    with get_session() as session:
        job = session.query(ProcessingJob).one()
        positions = [file.position for file in job.file_extractions]
        owners = {file.job.batch_id for file in job.file_extractions}
        session.delete(job)
    with get_session() as session:
        left = session.query(FileExtraction).count()

    assert ([0, 1, 2], {"b1"}, 0) == (positions, owners, left)


def test_file_needs_its_batch(database):
    """
    A file of a batch that does not exist is refused by the database itself.
    """
    with pytest.raises(DatabaseRefusedError), get_session() as session:
        session.add(FileExtraction(doc_id="d1", batch_id="missing"))


@pytest.mark.parametrize(
    "make", [lambda: ProcessingJob(batch_id="b2"), lambda: FileExtraction(doc_id="d", batch_id="b1")]
)
def test_state_is_one_of_the_known_words(database, make):
    """
    A word that is no state is refused by the database itself.
    """
    make_batch("b1")
    row = make()
    row.status = "odd"

    with pytest.raises(DatabaseRefusedError), get_session() as session:
        session.add(row)


def test_time_without_zone_is_a_mistake(database):
    """
    A naive time is not stored, since nobody could say which moment it means.
    """
    with pytest.raises(DatabaseRefusedError), get_session() as session:
        session.add(ProcessingJob(batch_id="b1", created_at=datetime(2026, 1, 1)))


def test_block_is_one_transaction(database):
    """
    A block that ends is committed, one that raises leaves nothing.
    """
    with get_session() as session:
        session.add(ProcessingJob(batch_id="kept"))
    with pytest.raises(RuntimeError), get_session() as session:
        session.add(ProcessingJob(batch_id="lost"))
        session.flush()
        raise RuntimeError

    assert get_batch_by_id("kept") is not None
    assert get_batch_by_id("lost") is None


def test_reading_goes_on_beside_a_writer(database):
    """
    A reading transaction sees the last commit while another one writes.
    """
    make_batch("b1")
    with database.writing() as writer:
        writer.query(ProcessingJob).update({"run_id": "new"})
        with database.reading() as reader:
            seen = reader.query(ProcessingJob).one().run_id

    assert "run-b1" == seen
    assert "new" == get_batch_by_id("b1").run_id


def test_statistics_add_up(database):
    """
    Members are files and skipped, and every count and sum is that of the rows.
    """
    fill_batch("b1", 4, skipped=2)
    with get_session() as session:
        session.query(FileExtraction).filter_by(position=0).update({"status": "success", "processing_duration_ms": 30})
        session.query(FileExtraction).filter_by(position=1).update({"status": "failed", "retry_count": 2})
        counts = queries.batch_statistics("b1", session=session)

    assert (6, 4, 2, 1, 1, 2) == tuple(
        counts[name] for name in ("members", "files", "skipped", "succeeded", "failed", "unfinished")
    )
    assert ({"text": 4}, 60, 30, 2) == (
        counts["by_type"],
        counts["size_bytes"],
        counts["processing_ms"],
        counts["retries"],
    )


def test_entries_come_in_pages_and_in_order(database, monkeypatch):
    """
    Members are read page by page, none twice and none left out.
    """
    fill_batch("b1", 25)
    monkeypatch.setattr(queries, "_PAGE", 10)
    with database.reading() as session:
        positions = [entry.position for entry in queries.iterate_entries("b1", session=session)]

    assert list(range(25)) == positions


def test_slowest_and_failed_files_are_found(database):
    """
    The slowest files come slowest first, the failed ones in the archive's order.
    """
    fill_batch("b1", 4)
    with get_session() as session:
        for position in (1, 2, 3):
            session.query(FileExtraction).filter_by(position=position).update(
                {"processing_duration_ms": position * 10, "status": "failed" if position > 1 else "success"}
            )
    with database.reading() as session:
        slowest = [entry.position for entry in queries.slowest_files("b1", session=session)]
        failed = [(entry.position, entry.attempts) for entry in queries.failed_files("b1", session=session)]

    assert ([3, 2, 1], [(2, 1), (3, 1)]) == (slowest, failed)


def test_batches_and_files_are_found_by_what_people_type(database):
    """
    The beginning of an id or a drop's name finds a batch, that of a doc_id a file; a percent sign finds nothing.
    """
    fill_batch("aaaa1", 1)
    make_batch("aaaa2", name="other.zip")
    with database.reading() as session:
        by_id = {batch.batch_id for batch in queries.match_batches("aaaa", session=session)}
        by_name = [batch.batch_id for batch in queries.match_batches("other.zip", session=session)]
        files = [file.doc_id for file in queries.match_files("aaaa1-000", session=session)]
        nothing = queries.match_batches("%", session=session) + queries.match_files("%", session=session)
        listed = {batch.batch_id for batch in queries.list_batches(session=session, limit=5)}

    assert ({"aaaa1", "aaaa2"}, ["aaaa2"], ["aaaa1-00000"], []) == (by_id, by_name, files, nothing)
    assert by_id == listed


def test_files_are_counted_for_several_batches_at_once(database):
    """
    Every batch asked for has its counts by state, an unknown one none.
    """
    fill_batch("b1", 2, skipped=1)
    fill_batch("b2", 1)
    with database.reading() as session:
        counts = queries.count_by_state(["b1", "b2", "missing"], session=session)

    assert {"b1": {"pending": 2, "skipped": 1}, "b2": {"pending": 1}, "missing": {}} == counts


def test_summary_of_a_run_is_replaced(database):
    """
    A run has one summary; a later one takes its place.
    """
    first = create_or_update_run_summary("r1", {"v": 1}, counts={"files": 3, "succeeded": 2, "failed": 1}, now=NOW)
    second = create_or_update_run_summary("r1", {"v": 2}, nested_summary={"n": 1}, now=NOW + timedelta(hours=1))

    assert first.id == second.id
    assert ({"v": 2}, {"n": 1}, NOW) == (second.ui_json, second.nested_summary, second.created_at)
    assert (3, 2, 1) == (first.file_count, first.success_count, first.error_count)


def test_living_database_answers(database_url):
    """
    A database that is there passes the connection test, and the engine can be closed and used again.
    """
    engine = create_engine(settings(database_url))

    assert test_connection(engine)
    connection.close(engine)
    assert test_connection(engine)
    connection.close(engine)


def test_missing_server_is_unavailable():
    """
    Nobody listening is a transient error with a hint, and the connection test says no.
    """
    engine = create_engine(settings("postgresql+psycopg2://me:hunter2@127.0.0.1:1/x"))

    assert not test_connection(engine)
    with pytest.raises(DatabaseUnavailableError, match="inbox check") as refused:
        connection.ping(engine)
    assert "hunter2" not in f"{refused.value!r} {refused.value} {engine!r}"
    connection.close(engine)


def test_stopped_server_comes_back(own_postgres_server):
    """
    A server that stops makes transactions fail as transient, and after its return the same engine works again.
    """
    url = own_postgres_server.create_database()
    with connected(url, timeout=2.0) as sessions:
        with sessions.writing() as session:
            session.execute(text("SELECT 1"))
        own_postgres_server.local.stop()
        with pytest.raises(DatabaseUnavailableError), sessions.writing() as session:
            session.execute(text("SELECT 1"))
        own_postgres_server.local.start()

        with sessions.writing() as session:
            assert 1 == session.execute(text("SELECT 1")).scalar_one()


def test_exhausted_pool_is_unavailable(database_url):
    """
    When every connection is taken, the next one fails as transient after the timeout, and says which setting to raise.
    """
    with (
        connected(database_url, connections=1, timeout=1.0) as sessions,
        sessions.reading(),
        pytest.raises(DatabaseUnavailableError, match="DATABASE_MAX_CONNECTIONS"),
        sessions.reading(),
    ):
        pass


def test_missing_table_is_refused(empty_database_url):
    """
    A database without the schema refuses, with the command that mends it, and without values, in its traceback too.
    """
    with connected(empty_database_url), pytest.raises(DatabaseRefusedError, match="db upgrade") as refused:
        get_batch_by_id("a secret" + " value")

    assert "a secret value" not in "".join(traceback.format_exception(refused.value))


def test_unusable_url_is_a_configuration_error():
    """
    What is no URL is a mistake in the settings.
    """
    with pytest.raises(ConfigurationError):
        create_engine(settings("no url"))


def test_folder_of_the_embedded_database_is_made(tmp_path):
    """
    The embedded database brings its folder along; where it cannot, the mistake is explained.
    """
    engine = create_engine(settings(f"sqlite:///{tmp_path}/new/folder/inbox.db"))
    assert test_connection(engine)
    connection.close(engine)
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot make the folder"):
        create_engine(settings(f"sqlite:///{tmp_path}/file/inbox.db"))


def test_broken_file_is_refused(tmp_path):
    """
    A file that is no SQLite database is refused for good, not waited for.
    """
    (tmp_path / "inbox.db").write_bytes(b"this is not a database, though it is long enough to be one" * 99)
    engine = create_engine(settings(f"sqlite:///{tmp_path}/inbox.db"))

    with pytest.raises(DatabaseRefusedError):
        connection.ping(engine)
    connection.close(engine)


@pytest.mark.parametrize(
    ("code", "kind"), [("40001", DatabaseBusyError), ("40P01", DatabaseBusyError), ("53300", DatabaseUnavailableError)]
)
def test_losing_a_race_is_busy(code, kind):
    """
    A deadlock or a serialization failure is worth another try at once, a lack of connections a wait.
    """
    origin = type("Origin", (Exception,), {"pgcode": code})()

    assert kind is type(translate(sqlalchemy.exc.OperationalError("SELECT 1", {}, origin)))


def test_busy_transaction_is_repeated(monkeypatch):
    """
    A transaction that lost is repeated as a whole, until it wins.
    """
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    calls = []

    @retry_when_busy
    def transaction():
        calls.append(1)
        if len(calls) < 3:
            raise DatabaseBusyError("deadlock")
        return "won"

    assert "won" == transaction()


def test_session_without_a_database_is_explained(monkeypatch):
    """
    Asking for a session before any database is connected says what to do.
    """
    monkeypatch.setattr(connection, "_latest_factory", [])

    with pytest.raises(DatabaseRefusedError, match="get_session_factory"), get_session():
        pass


def test_ids_are_ordered_by_time():
    """
    New ids are UUIDs of version 7, so that new rows land next to each other.
    """
    ids = [new_id() for _ in range(3)]

    assert {7} == {one.version for one in ids}
    assert len(set(ids)) == 3
    assert [one.int >> 80 for one in ids] == sorted(one.int >> 80 for one in ids)
