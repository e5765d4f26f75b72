"""What any exception means, and how errors read."""

import builtins
import errno
import json
import math
import pickle
import sqlite3
import xml.etree.ElementTree as ET
import zipfile
import zlib

import psycopg2
import pytest
import sqlalchemy.exc
import urllib3.exceptions

from inbox.core import errors
from inbox.core.errors import (
    RETRYABLE_TYPES,
    ArchiveRefusedError,
    ConfigurationError,
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    ErrorType,
    LeaseLostError,
    LLMError,
    NotSettledError,
    ParseError,
    PermanentError,
    RateLimitError,
    RetryableError,
    StorageError,
    TimeoutError,
    UnsafePathError,
    WorkerError,
    classify_error,
    classify_http_status,
    describe_error,
    format_message,
    is_retryable,
    retry_after_seconds,
)

CONTRACT = {
    WorkerError: "UNKNOWN",
    RetryableError: "RETRYABLE",
    PermanentError: "PERMANENT",
    TimeoutError: "TIMEOUT",
    RateLimitError: "RATE_LIMIT",
    ParseError: "PARSE_ERROR",
    LLMError: "LLM_ERROR",
}


@pytest.mark.parametrize(("kind", "word"), CONTRACT.items())
def test_each_error_carries_its_type(kind, word):
    """
    The seven errors of the contract carry their words, on the class and through the classification.
    """
    assert word == kind.error_type
    assert word == classify_error(kind("message"))
    assert issubclass(kind, WorkerError)


def test_families_are_two():
    """
    Transient errors are retryable ones, permanent ones are not, and nothing is both.
    """
    transient = {RetryableError, TimeoutError, RateLimitError, LLMError, DatabaseUnavailableError, StorageError}
    transient |= {DatabaseBusyError, NotSettledError, LeaseLostError}
    permanent = {PermanentError, ParseError, ConfigurationError, DatabaseRefusedError, UnsafePathError}

    assert all(issubclass(kind, RetryableError) for kind in transient)
    assert all(issubclass(kind, PermanentError) for kind in {*permanent, ArchiveRefusedError})
    assert set(ErrorType) - RETRYABLE_TYPES == {ErrorType.UNKNOWN, ErrorType.PERMANENT, ErrorType.PARSE_ERROR}


class StatusError(Exception):
    def __init__(self, status):
        super().__init__("prose that says timeout, rate limit and parse error")
        self.status_code = status


class Response:
    def __init__(self, status):
        self.status_code = status


class ResponseError(Exception):
    def __init__(self, status):
        super().__init__()
        self.response = Response(status)


def database_error(kind, origin):
    return kind("SELECT 1", {}, origin)


def sqlite_error(code):
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    return error


FOREIGN = [
    (ConnectionResetError(), "RETRYABLE"),
    (ConnectionRefusedError(), "RETRYABLE"),
    (builtins.TimeoutError(), "TIMEOUT"),
    (OSError(errno.ETIMEDOUT, "timed out"), "TIMEOUT"),
    (OSError(errno.ENOSPC, "full"), "RETRYABLE"),
    (OSError(errno.EIO, "I/O"), "RETRYABLE"),
    (FileNotFoundError(errno.ENOENT, "gone"), "PERMANENT"),
    (PermissionError(errno.EACCES, "denied"), "PERMANENT"),
    (MemoryError(), "RETRYABLE"),
    (NotImplementedError(), "PERMANENT"),
    (ValueError("whatever"), "UNKNOWN"),
    (KeyError("whatever"), "UNKNOWN"),
    (RuntimeError("timeout, retry, rate limit"), "UNKNOWN"),
    (OSError("no number"), "UNKNOWN"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "PARSE_ERROR"),
    (json.JSONDecodeError("bad", "{", 1), "PARSE_ERROR"),
    (zipfile.BadZipFile(), "PARSE_ERROR"),
    (zlib.error(), "PARSE_ERROR"),
    (ET.ParseError(), "PARSE_ERROR"),
    (EOFError(), "PARSE_ERROR"),
    (StatusError(429), "RATE_LIMIT"),
    (StatusError(503), "RETRYABLE"),
    (StatusError(408), "TIMEOUT"),
    (StatusError(404), "PERMANENT"),
    (StatusError(200), "UNKNOWN"),
    (ResponseError(502), "RETRYABLE"),
    (urllib3.exceptions.ReadTimeoutError(None, "/", "slow"), "TIMEOUT"),
    (urllib3.exceptions.ProtocolError("cut"), "RETRYABLE"),
    (urllib3.exceptions.LocationParseError("bad"), "PERMANENT"),
    (psycopg2.OperationalError("server closed the connection"), "RETRYABLE"),
    (psycopg2.ProgrammingError("no such table"), "PERMANENT"),
    (sqlite_error(sqlite3.SQLITE_BUSY), "RETRYABLE"),
    (sqlite_error(sqlite3.SQLITE_CORRUPT), "PERMANENT"),
    (sqlalchemy.exc.TimeoutError(), "TIMEOUT"),
    (database_error(sqlalchemy.exc.OperationalError, psycopg2.OperationalError("gone")), "RETRYABLE"),
    (database_error(sqlalchemy.exc.OperationalError, sqlite_error(sqlite3.SQLITE_BUSY)), "RETRYABLE"),
    (database_error(sqlalchemy.exc.IntegrityError, psycopg2.IntegrityError("twice")), "PERMANENT"),
    (sqlalchemy.exc.InvalidRequestError(), "PERMANENT"),
]


@pytest.mark.parametrize(("error", "word"), FOREIGN, ids=lambda value: getattr(type(value), "__name__", value))
def test_foreign_errors_are_classified_by_type(error, word):
    """
    The standard library's, SQLAlchemy's, the drivers' and HTTP clients' errors mean what their type and code say.
    """
    assert word == classify_error(error)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("40001", "RETRYABLE"),
        ("40P01", "RETRYABLE"),
        ("53300", "RETRYABLE"),
        ("57P01", "RETRYABLE"),
        ("57014", "TIMEOUT"),
        ("08006", "RETRYABLE"),
        ("23505", "PERMANENT"),
        ("42P01", "PERMANENT"),
    ],
)
def test_sqlstate_decides(state, word):
    """
    PostgreSQL's own code decides, whatever Python type carries it.
    """
    error = psycopg2.Error()
    coded = type("Coded", (psycopg2.Error,), {"pgcode": state})()

    assert word == classify_error(coded)
    assert "PERMANENT" == classify_error(error)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("openai.RateLimitError", "RATE_LIMIT"),
        ("openai.APITimeoutError", "TIMEOUT"),
        ("anthropic.AnthropicError", "LLM_ERROR"),
        ("httpx.ConnectTimeout", "TIMEOUT"),
        ("requests.exceptions.ConnectionError", "RETRYABLE"),
        ("kreuzberg.exceptions.ParsingError", "PARSE_ERROR"),
        ("pypdf.errors.PdfReadError", "PARSE_ERROR"),
    ],
)
def test_libraries_are_known_by_name(name, word):
    """
    Libraries that are not installed are recognised by the names of their errors' classes, bases included.
    """
    bases = {"httpx.ConnectTimeout": "TimeoutException", "pypdf.errors.PdfReadError": "PyPdfError"}
    module, _, qualified = name.rpartition(".")
    base = type(bases.get(name, "Base"), (Exception,), {"__module__": module})
    error = type(qualified, (base,), {"__module__": module})

    assert word == classify_error(error())


def test_cause_decides_for_an_error_that_says_nothing():
    """
    An exception raised from another is judged by that one when it says nothing by itself.
    """
    try:
        try:
            raise ConnectionResetError
        except ConnectionResetError as cause:
            raise RuntimeError("wrapped") from cause
    except RuntimeError as wrapped:
        error = wrapped
    circular = RuntimeError("a")
    circular.__cause__ = circular

    assert "RETRYABLE" == classify_error(error)
    assert is_retryable(error)
    assert "UNKNOWN" == classify_error(circular)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (200, None),
        (302, None),
        (400, "PERMANENT"),
        (408, "TIMEOUT"),
        (429, "RATE_LIMIT"),
        (500, "RETRYABLE"),
        (504, "TIMEOUT"),
    ],
)
def test_status_has_a_meaning(status, word):
    """
    An HTTP status is success, transient or permanent.
    """
    assert word == classify_http_status(status)


def test_message_says_what_to_what_and_what_to_do():
    """
    A message has its three parts in one line, each only when it is there.
    """
    assert "it broke: a.txt (mend it)" == format_message("it broke", subject="a.txt", hint="mend it")
    assert "it broke" == format_message("it broke")
    assert "it broke: a.txt (mend it)" == str(WorkerError("it broke", subject="a.txt", hint="mend it"))
    assert "ParseError" == str(ParseError())


def test_description_is_one_line_of_bounded_length():
    """
    Whatever an exception says becomes one line that is not longer than asked for.
    """
    assert "ValueError: two lines" == describe_error(ValueError("two\nlines"))
    assert "KeyError" == describe_error(KeyError()).rstrip(": ")
    assert 50 == len(describe_error(ValueError("x" * 999), limit=50))
    assert "plain" == describe_error(WorkerError("plain"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(3, 3.0), (0, 0.0), (-1, None), (math.inf, None), (math.nan, None), ("soon", None), (None, None)],
)
def test_retry_after_is_a_number_of_seconds(value, seconds):
    """
    Only a finite number that is not negative is taken for a server's wish.
    """
    error = ValueError()
    error.retry_after = value

    assert seconds == retry_after_seconds(error)


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("slow down", subject="x", hint="wait", retry_after=3),
        ConfigurationError("bad", problems=("one", "two")),
        ArchiveRefusedError("BAD_CRC", "damaged", subject="a", damaged=True),
    ],
)
def test_errors_survive_a_process_boundary(error):
    """
    An error that crosses a process boundary arrives with all its parts.
    """
    copy = pickle.loads(pickle.dumps(error))

    assert type(error) is type(copy)
    assert vars(error) == vars(copy)
    assert str(error) == str(copy)


def test_reason_code_defaults_to_the_type():
    """
    Without a code of its own an error goes by its type.
    """
    assert "TIMEOUT" == TimeoutError("late").reason_code
    assert "DISK_FULL" == errors.StorageError("full", reason_code="DISK_FULL").reason_code
