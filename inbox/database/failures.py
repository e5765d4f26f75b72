"""What the driver's errors mean: busy, unavailable or refused, each said so that an operator knows what to look at."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from inbox.core.errors import (
    RETRYABLE_TYPES,
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    WorkerError,
    classify_error,
)

READ_ONLY_SQLSTATE: Final = "25006"
_BUSY_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_BUSY_SQLITE_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_BROKEN_SQLITE_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_TAKES_NO_WRITES: Final = "session is read-only"  # libpq's words about a server that is no primary

# libpq tells nothing of a refused connection but the server's words, which are English unless `lc_messages` says else.
_REFUSED_CONNECTION: Final = re.compile(
    r"FATAL: .*(password authentication failed|authentication failed for user|no pg_hba\.conf entry"
    r'|database ".*" does not exist|role ".*" does not exist|role ".*" is not permitted to log in'
    r"|permission denied for database)|no password supplied"
)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's and SQLAlchemy's errors into the project's own, without statement or parameters."""
    try:
        yield
    except SQLAlchemyError as error:
        raise translate(error) from error


def translate(error: SQLAlchemyError) -> WorkerError:  # noqa: PLR0911 - one return for each thing to look at
    """Return the project's error for one of SQLAlchemy's: busy, unavailable or refused."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError(
            "no database connection became free in time", hint="raise DATABASE_MAX_CONNECTIONS"
        )
    origin = error.orig if isinstance(error, DBAPIError) else error
    what = " ".join(str(origin).split())
    sqlstate, sqlite_code = getattr(origin, "pgcode", None), _sqlite_code(origin)
    if sqlstate in _BUSY_SQLSTATES or sqlite_code in _BUSY_SQLITE_CODES:
        return DatabaseBusyError(f"the database is busy: {what}")
    if sqlite_code in _BROKEN_SQLITE_CODES:
        return DatabaseRefusedError(
            f"the database file is broken: {what}", hint="stop inbox and put a backup in its place"
        )
    if sqlstate is None and _REFUSED_CONNECTION.search(what):
        return DatabaseRefusedError(
            f"the database lets nobody in: {what}", hint="check DATABASE_URL, user, password and database's name"
        )
    if classify_error(error) not in RETRYABLE_TYPES:
        return DatabaseRefusedError(
            f"the database refuses: {what}", hint="is the schema current? run `inbox db upgrade`"
        )
    if sqlstate == READ_ONLY_SQLSTATE or (sqlstate is None and _TAKES_NO_WRITES in what):
        return DatabaseUnavailableError(
            f"the database takes no writes: {what}", hint="it is a standby or made read-only; inbox connects anew"
        )
    if sqlstate is not None or sqlite_code is not None:
        return DatabaseUnavailableError(f"the database cannot do it now: {what}", hint="look at the database's own log")
    return DatabaseUnavailableError(
        f"the database does not answer: {what}", hint="check that it runs, and DATABASE_URL with `inbox check`"
    )


def _sqlite_code(origin: BaseException | None) -> int | None:
    code = getattr(origin, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
