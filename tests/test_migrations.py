"""Migrations: the tables are those of the models, whoever makes them, and however many at once."""

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import connected
from sqlalchemy import inspect, text

from inbox.core.errors import DatabaseRefusedError
from inbox.database import migrating
from inbox.database.migrating import HEAD, VERSION_TABLE, alembic_config, current_revision, require_current, upgrade
from inbox.database.models import Base

SPAWN = multiprocessing.get_context("spawn")
VERSIONS = Path(migrating.__file__).parent / "migrations" / "versions"


@pytest.fixture
def engine(empty_database_url):
    with connected(empty_database_url) as sessions:
        yield sessions.factory.kw["bind"]


def test_newest_revision_is_the_one_required():
    """
    The revision this program asks for is the newest in the folder.
    """
    assert HEAD == max(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def test_migrated_schema_is_that_of_the_models(engine):
    """
    After all migrations nothing differs from what the models declare.
    """
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, Base.metadata)

    assert [] == differences


def describe(engine):
    """What autogenerate does not look at: conditions of indexes and states, deletion rules, fill factors."""
    found = inspect(engine)
    kinds = (found.get_indexes, found.get_check_constraints, found.get_unique_constraints, found.get_foreign_keys)
    tables = [name for name in found.get_table_names() if name != VERSION_TABLE]
    details = {name: [sorted(json.dumps(one, default=str) for one in kind(name)) for kind in kinds] for name in tables}
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            options = connection.execute(text("SELECT relname, reloptions FROM pg_class WHERE relkind = 'r'"))
            details["options"] = sorted((name, chosen) for name, chosen in options if name in tables)
        return details


def test_migrated_schema_is_that_of_the_models_in_every_detail(engine):
    """
    Tables made by the migrations and tables made from the models cannot be told apart.
    """
    upgrade(engine)
    migrated = describe(engine)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
        Base.metadata.create_all(connection)

    assert describe(engine) == migrated
    assert "processing_completed_at IS NULL" in str(migrated["file_extractions"])


def test_second_upgrade_does_nothing(engine):
    """
    The first upgrade has something to do, the second has not, and the schema is current.
    """
    assert current_revision(engine) is None
    with pytest.raises(DatabaseRefusedError, match="inbox db upgrade"):
        require_current(engine)
    assert upgrade(engine)
    assert not upgrade(engine)
    assert HEAD == current_revision(engine)
    require_current(engine)


def upgrade_in_process(url):
    with connected(url) as sessions:
        return upgrade(sessions.factory.kw["bind"])


def test_several_processes_may_upgrade_at_once(engine, empty_database_url):
    """
    Of several services that start together one migrates, and the others wait for it.
    """
    with SPAWN.Pool(3) as pool:
        done = pool.map(upgrade_in_process, [empty_database_url] * 3)

    assert 1 == sum(done)
    assert HEAD == current_revision(engine)


def test_whoever_waited_finds_it_done(engine, empty_database_url, monkeypatch):
    """
    A service that found no schema, and then waited for another one's migration, does nothing more.
    """
    monkeypatch.setattr(migrating, "current_revision", lambda _engine: None)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: upgrade_in_process(empty_database_url), range(3)))

    assert 1 == sum(done)


def test_newer_schema_is_refused(engine):
    """
    A database that a newer version has upgraded is left alone.
    """
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(DatabaseRefusedError, match="a newer inbox"):
        upgrade(engine)


def test_failed_migration_leaves_nothing(engine, monkeypatch):
    """
    A migration that fails half-way is taken back as a whole.
    """

    def fail(connection):
        connection.execute(text("CREATE TABLE half (x INTEGER)"))
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrating, "_run", fail)

    with pytest.raises(RuntimeError):
        upgrade(engine)
    assert [] == inspect(engine).get_table_names()


def lay_down_anything(connection, name):
    """A row of the required columns, with a state that every table knows."""
    row = {"status": "processing", "id": "7" * 32}
    for column in inspect(connection).get_columns(name):
        if not column["nullable"] and column["name"] not in row:
            kind = column["type"].python_type
            row[column["name"]] = {datetime: "2026-01-01 00:00:00", int: 7}.get(kind, "7")
    columns = ", ".join(row), ", ".join(f":{one}" for one in row)
    connection.execute(text("INSERT INTO {} ({}) VALUES ({})".format(name, *columns)), row)


def test_rows_of_the_first_revision_live_through_the_others(engine):
    """
    Rows from before have no origin of their names and no known handler, and are all there, upgraded and downgraded.
    """

    def rows():
        return [dict(row) for row in connection.execute(text("SELECT * FROM file_extractions")).mappings()]

    upgrade(engine)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0001")
        for name in ("processing_jobs", "file_extractions"):
            lay_down_anything(connection, name)
        before = rows()
    upgrade(engine)
    with engine.begin() as connection:
        upgraded = rows()
        connection.execute(
            text("UPDATE file_extractions SET name_origin = '{}', handler = 'http', handler_version = '2'")
        )
        command.downgrade(alembic_config(connection), "0001")
        after = rows()

    assert 1 == len(before)
    new = dict.fromkeys(["name_origin", "turn", "handler", "handler_version"])
    assert [one | new for one in before] == upgraded
    assert before == after


def test_first_revision_can_be_taken_back(engine):
    """
    The downgrade of the first revision removes every table that it made.
    """
    upgrade(engine)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")

    assert {VERSION_TABLE} == set(inspect(engine).get_table_names())
