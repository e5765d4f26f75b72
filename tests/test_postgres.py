"""The test databases themselves: fresh, separate, and gone when their process is."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import postgres
import psycopg2
import pytest
import sqlalchemy

HELPER = Path(postgres.__file__)


def test_a_database_is_fresh(empty_database_url):
    """
    A test gets a database without any table.
    """
    engine = sqlalchemy.create_engine(empty_database_url)
    tables = sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()

    assert [] == tables


def test_a_copy_has_what_its_template_has_and_no_more(postgres_server):
    """
    A database made from a template starts with its tables, and later changes stay in the copy.
    """
    template = postgres_server.create_database()
    execute(template, "create table told (word text)")
    first = postgres_server.create_database(template=template)
    execute(first, "insert into told values ('first')")
    second = postgres_server.create_database(template=template)

    assert 1 == count(first, "told")
    assert 0 == count(second, "told")


def test_a_stopped_server_comes_back_with_its_data(own_postgres_server):
    """
    A test may take its own server away and give it back on the same port.
    """
    url = own_postgres_server.create_database()
    execute(url, "create table told (word text)")
    own_postgres_server.local.stop()
    with pytest.raises(psycopg2.OperationalError):
        execute(url, "select 1")
    own_postgres_server.local.start()

    assert 0 == count(url, "told")


@pytest.fixture
def open_folder():
    """A temporary folder that the server's user may enter, whoever that is; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif("TEST_DATABASE_URL" in os.environ, reason="the server of TEST_DATABASE_URL outlives the tests")
def test_the_server_ends_with_its_process(open_folder, postgres_server):
    """
    A killed test run leaves no server behind, and its folder goes with the next sweep.
    """
    environment = {**os.environ, "TMPDIR": str(open_folder)}
    with subprocess.Popen([sys.executable, HELPER], env=environment, stdout=subprocess.PIPE, text=True) as helper:
        url = helper.stdout.readline().strip()
        execute(url, "select 1")
        helper.kill()
    has_ended = ends_within(30, url)
    left_behind = list(open_folder.iterdir())
    postgres.sweep(open_folder, older_than=0)

    assert has_ended
    assert 1 == len(left_behind)
    assert [] == list(open_folder.iterdir())


def test_a_server_that_cannot_be_reached_is_named(monkeypatch):
    """
    Without a usable server the reason says which way was tried, and leaves the password out.
    """
    monkeypatch.setenv("TEST_DATABASE_URL", f"postgresql://me:hush@127.0.0.1:{postgres.free_port()}/none")
    with pytest.raises(postgres.NoServerError, match="TEST_DATABASE_URL") as caught, postgres.any_server():
        pass

    assert "hush" not in str(caught.value)


def execute(url, statement):
    connection = postgres.connect(sqlalchemy.make_url(url))
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def count(url, table):
    connection = postgres.connect(sqlalchemy.make_url(url))
    with connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*) from {table}")
        found = cursor.fetchone()[0]
    connection.close()
    return found


def ends_within(seconds, url):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            postgres.connect(sqlalchemy.make_url(url)).close()
        except psycopg2.OperationalError as error:
            if "refused" in str(error):
                return True
    return False
