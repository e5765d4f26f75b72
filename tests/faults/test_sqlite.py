"""The embedded database when its file or its disk fails: a clear word, and never an empty one in its place."""

import os
import shutil
import subprocess
import sys

import pytest
from databases import connected
from processes import Storage, wait_for
from sqlalchemy import text

from inbox.core.errors import DatabaseBusyError, DatabaseRefusedError, DatabaseUnavailableError

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(sqlite_template, tmp_path):
    """A fresh SQLite file with the newest schema."""
    path = tmp_path / "inbox.db"
    shutil.copyfile(sqlite_template, path)
    return path


@pytest.fixture
def sessions(path):
    with connected(f"sqlite:///{path}", timeout=0.1) as made:
        yield made


def write(sessions):
    with sessions.writing() as session:
        session.execute(text("UPDATE leases SET owner = owner"))
        session.execute(text("INSERT INTO run_summaries SELECT * FROM run_summaries"))


def fill(sessions, rows=200):
    with sessions.writing() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS big (x)"))
        for _ in range(rows):
            session.execute(text("INSERT INTO big VALUES (zeroblob(100000))"))


def test_lock_of_another_process_is_busy_and_passes(sessions, path):
    """
    A lock held by another process for longer than DATABASE_TIMEOUT is busy, and work goes on when it is let go.
    """
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(DatabaseBusyError):
            write(sessions)
        holder.stdin.close()
        holder.wait()

    write(sessions)


def test_full_disk_is_waited_for(sessions):
    """
    A database that cannot grow is trouble that passes; what was there stays.
    """
    with sessions.reading() as session:
        driver = session.connection().connection.dbapi_connection
        driver.execute("PRAGMA max_page_count = 40")
    with pytest.raises(DatabaseUnavailableError, match="full"):
        fill(sessions)
    driver.execute("PRAGMA max_page_count = 1000000")

    fill(sessions, rows=1)


def test_read_only_file_is_waited_for(sessions, monkeypatch):
    """
    A database that has become read-only is trouble that passes.
    """
    with sessions.reading() as session:
        session.connection().connection.dbapi_connection.execute("PRAGMA query_only = on")
    with pytest.raises(DatabaseUnavailableError, match="readonly"):
        write(sessions)


def test_broken_file_is_refused_with_what_to_do(path):
    """
    A malformed file is refused, and the word is of a backup, not of the schema.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with connected(f"sqlite:///{path}") as sessions, pytest.raises(DatabaseRefusedError, match="broken") as raised:
        write(sessions)

    assert "backup" in raised.value.hint


def test_file_that_is_no_database_is_refused(path):
    """
    Other bytes in the database's place are refused.
    """
    path.write_bytes(b"no database at all" * 1000)
    with connected(f"sqlite:///{path}") as sessions, pytest.raises(DatabaseRefusedError, match="broken"):
        write(sessions)


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
def test_file_that_goes_is_refused_until_it_is_back(sessions, path, sqlite_template, replaced):
    """
    A file deleted or replaced under our hands is refused, no empty one is made, and the old one back is taken up again.
    """
    write(sessions)
    aside = path.with_name("aside")
    path.rename(aside)
    if replaced:
        shutil.copyfile(sqlite_template, path)
    with pytest.raises(DatabaseRefusedError, match="replaced" if replaced else "gone"):
        write(sessions)
    made = path.exists()
    aside.rename(path)
    write(sessions)

    assert replaced == made


@pytest.mark.slow
def test_service_without_its_file_waits_and_makes_no_other(tmp_path):
    """
    Its database deleted, the service says so in one line and makes no empty one; nor does a start, before it is told.
    """
    shared = Storage(tmp_path / "shared", HANDLERS="handlers_for_processes", DATABASE_TIMEOUT=1)
    path = shared.base / ".inbox" / "inbox.db"
    with shared.service() as service:
        shared.drop("a.zip", ["ok.txt"])
        shared.wait_for_receipt("a.zip")
        wait_for(lambda: not list((shared.base / "uploads").iterdir()), "the move")
        path.rename(path.with_name("aside.db"))
        wait_for(lambda: service.events("TroubleBegan"), "the line")
        shared.drop("b.zip", ["ok.txt", "other.txt"])
        status = service.terminate()
        told = service.events("TroubleBegan")
    made = path.exists()
    again = shared.run("run")
    made_again = path.exists()
    upgraded = shared.run("db", "upgrade")

    assert (0, False, 2, False, 0) == (status, made, again.returncode, made_again, upgraded.returncode)
    assert 1 == len(told)
    assert "the database file is gone" in told[0]["message"]
    assert "inbox db upgrade" in again.stderr
    assert path.exists()
