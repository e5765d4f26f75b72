"""What errors mean as they really come: from both databases, from sockets, processes and parsers."""

import asyncio
import binascii
import concurrent.futures.process
import configparser
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request

import kreuzberg
import pytest
import sqlalchemy
import urllib3
from kreuzberg import exceptions as kreuzberg_errors

from inbox.core.errors import DatabaseRefusedError, ParseError, classify_error, is_retryable
from inbox.database.connection import get_session
from inbox.urls import build_database_url


@pytest.fixture
def engines(database_url):
    """Two ways to one database, so that one can be in the way of the other; neither waits for long."""
    url = build_database_url(database_url)
    soon = (
        {"timeout": 0.01} if url.get_backend_name() == "sqlite" else {"options": "-c lock_timeout=10 -c timezone=UTC"}
    )
    made = [sqlalchemy.create_engine(url, connect_args=soon) for _ in range(2)]
    yield made
    for engine in made:
        engine.dispose()


def error_of(call, *arguments, **options):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - what it is, is what the test is about
        call(*arguments, **options)
    return raised.value


def run(engine, statement):
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM nowhere", "SELEC 1", "INSERT INTO processing_jobs (id) VALUES (NULL)"],
    ids=["no such table", "no statement", "not null"],
)
def test_refused_statement_is_permanent(engines, statement):
    """
    A database that answers and says no will say no again.
    """
    error = error_of(run, engines[0], statement)

    assert "PERMANENT" == classify_error(error)
    assert "PERMANENT" == classify_error(error.orig)


def test_locked_out_is_retryable(engines):
    """
    Whoever finds a table or a database locked by somebody else may try again.
    """
    holder, other = engines
    lock = "BEGIN IMMEDIATE" if holder.name == "sqlite" else "LOCK TABLE processing_jobs"

    with holder.connect() as connection:
        connection.exec_driver_sql(lock)
        error = error_of(run, other, "DELETE FROM processing_jobs")
        connection.exec_driver_sql("ROLLBACK")

    assert "RETRYABLE" == classify_error(error)


def test_cancelled_statement_is_a_timeout(postgres_template, postgres_server):
    """
    A statement that PostgreSQL ends for its length took too long.
    """
    engine = sqlalchemy.create_engine(
        build_database_url(postgres_template), connect_args={"options": "-c statement_timeout=10"}
    )
    error = error_of(run, engine, "SELECT pg_sleep(30)")
    engine.dispose()

    assert "TIMEOUT" == classify_error(error)


def test_database_that_does_not_answer_is_retryable(unused_port):
    """
    A server that is not there may be there later.
    """
    engine = sqlalchemy.create_engine(build_database_url(f"postgresql://u@127.0.0.1:{unused_port}/d"))

    assert "RETRYABLE" == classify_error(error_of(run, engine, "SELECT 1"))


def test_pool_without_a_free_connection_is_a_timeout(database_url):
    """
    Waiting in vain for a connection of the pool is waiting for too long.
    """
    engine = sqlalchemy.create_engine(
        build_database_url(database_url), poolclass=sqlalchemy.QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    with engine.connect():
        error = error_of(engine.connect)
    engine.dispose()

    assert "TIMEOUT" == classify_error(error)


def test_session_raises_what_means_the_same(database):
    """
    The project's own error, which a session makes of the database's, means what that one means.
    """

    def ask():
        with get_session() as session:
            session.execute(sqlalchemy.text("SELECT * FROM nowhere"))

    error = error_of(ask)

    assert isinstance(error, DatabaseRefusedError)
    assert "PERMANENT" == classify_error(error)


@pytest.mark.parametrize(
    "call",
    [
        urllib.request.urlopen,
        lambda url: urllib3.PoolManager(retries=False).request("GET", url),
        lambda url: urllib3.PoolManager(retries=1).request("GET", url),
    ],
    ids=["urllib", "urllib3", "urllib3 that tried again"],
)
def test_http_server_that_is_not_there_is_retryable(call, unused_port):
    """
    A refused connection may be taken later, whatever the client wraps it in.
    """
    assert is_retryable(error_of(call, f"http://127.0.0.1:{unused_port}/"))


def test_url_that_means_nothing_is_final():
    """
    A URL that no client can use is no transient trouble.
    """
    assert not is_retryable(error_of(urllib.request.urlopen, "strange://x"))
    assert not is_retryable(error_of(urllib3.PoolManager().request, "GET", "http://[x"))


@pytest.mark.parametrize(
    ("code", "word"), [(404, "PERMANENT"), (408, "TIMEOUT"), (429, "RATE_LIMIT"), (503, "RETRYABLE")]
)
def test_status_in_urllibs_error_decides(code, word):
    """
    An answer with an error status means what the status says.
    """
    with urllib.error.HTTPError("http://x", code, "", {}, io.BytesIO()) as error:
        assert word == classify_error(error)


@pytest.mark.parametrize(
    ("call", "content"),
    [
        (gzip.decompress, b"not gzip"),
        (lzma.decompress, b"not xz"),
        (lambda content: tarfile.TarFile(fileobj=io.BytesIO(content)), b"not tar"),
        (binascii.unhexlify, b"x"),
        (lambda content: configparser.ConfigParser().read_string(content.decode()), b"no section"),
        (lambda content: kreuzberg.extract_bytes_sync(content, "application/pdf"), b"%PDF-1.7 and no more"),
        (lambda content: kreuzberg.extract_bytes_sync(content, "application/unheard-of"), b"x"),
    ],
    ids=["gzip", "xz", "tar", "hex", "ini", "pdf", "unheard of"],
)
def test_content_that_is_not_what_it_claims(call, content):
    """
    Content that its parser refuses is a parse error, whoever the parser is.
    """
    assert ParseError.error_type == classify_error(error_of(call, content))


@pytest.mark.parametrize(
    ("kind", "word"),
    [("KreuzbergError", "PERMANENT"), ("MissingDependencyError", "PERMANENT"), ("ExtractionTimeoutError", "TIMEOUT")],
)
def test_kreuzbergs_other_errors(kind, word):
    """
    What the document parser lacks is final, what it ran out of time for is a timeout.
    """
    assert word == classify_error(getattr(kreuzberg_errors, kind)("message"))


def test_process_that_takes_too_long_is_a_timeout():
    """
    A child process that is stopped for its time took too long; one that failed says nothing.
    """
    late = error_of(subprocess.run, [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, timeout=0)
    failed = error_of(subprocess.run, [sys.executable, "-c", "exit(1)"], check=True)

    assert "TIMEOUT" == classify_error(late)
    assert "UNKNOWN" == classify_error(failed)


def test_broken_pool_and_cut_stream_are_retryable():
    """
    A pool whose process died, and a connection that ended early, are worth another attempt.
    """
    assert "RETRYABLE" == classify_error(concurrent.futures.process.BrokenProcessPool())
    assert "RETRYABLE" == classify_error(asyncio.IncompleteReadError(b"", 1))


def test_group_is_what_all_in_it_are():
    """
    A group of exceptions is what all in it are, retryable when each of them is, and a surprise when they disagree.
    """

    async def fail(*errors):
        async def one(error):
            raise error

        async with asyncio.TaskGroup() as tasks:
            for error in errors:
                tasks.create_task(one(error))

    assert "TIMEOUT" == classify_error(error_of(asyncio.run, fail(TimeoutError(), TimeoutError())))
    assert "RETRYABLE" == classify_error(error_of(asyncio.run, fail(TimeoutError(), ConnectionResetError())))
    assert "UNKNOWN" == classify_error(error_of(asyncio.run, fail(ConnectionResetError(), NotImplementedError())))
