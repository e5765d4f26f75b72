"""
Engines, sessions and what their errors mean.

`get_session()` is one transaction: committed at the end of the block, rolled back on an exception, closed in any case,
with the driver's errors turned into the project's own.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from inbox.core.errors import (
    RETRYABLE_TYPES,
    ConfigurationError,
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    WorkerError,
    classify_error,
)
from inbox.core.retry import retry_with_backoff
from inbox.database.types import encode_json

READ_ONLY: Final = "inbox_read_only"
_BUSY_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_BUSY_SQLITE_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_RECYCLE_SECONDS: Final = 1800


class DatabaseSettings(Protocol):
    """What an engine needs to know."""

    @property
    def database_url(self) -> str: ...
    @property
    def database_max_connections(self) -> int: ...
    @property
    def database_timeout(self) -> float: ...


class Sessions:
    """
    Transactions on one engine. Stages hold this and nothing else of the database's machinery.

    `writing()` and `reading()` are context managers over one transaction each; a reading one takes no write lock.
    """

    def __init__(self, factory: sessionmaker[Session]) -> None:
        self.factory = factory

    @contextmanager
    def writing(self) -> Iterator[Session]:
        with get_session(self.factory) as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with get_session(self.factory, read_only=True) as session:
            yield session


_latest_factory: list[sessionmaker[Session]] = []

retry_when_busy = retry_with_backoff(
    max_attempts=6, base_delay=0.05, max_delay=2.0, retryable_exceptions=(DatabaseBusyError,)
)
"""Repeat a whole transaction that lost against another one: a deadlock, a serialization failure, SQLITE_BUSY."""


def create_engine(config: DatabaseSettings, *, only_looks: bool = False) -> Engine:
    """
    Return a pooled engine with pre-ping and timeouts. Nothing is connected yet.

    One that `only_looks` cannot write, and leaves no trace on the volume either; it is for a question of a moment.
    Raises ConfigurationError when the URL cannot be used.
    """
    try:
        url = make_url(config.database_url)
    except SQLAlchemyError:
        raise ConfigurationError("DATABASE_URL is not usable", hint="see `inbox config`") from None
    timeout = config.database_timeout
    options: dict[str, Any] = {
        "pool_size": config.database_max_connections,
        "max_overflow": 0,
        "pool_timeout": timeout,
        "pool_pre_ping": True,
        "pool_recycle": _RECYCLE_SECONDS,
        "json_serializer": encode_json,
        "hide_parameters": True,  # a statement in an error must not carry documents or secrets
    }
    if url.get_backend_name() == "sqlite":
        if only_looks:
            url = _to_look_at(url)
        else:
            _make_folder(url.database)
        engine = sqlalchemy.create_engine(url, connect_args={"timeout": timeout, "check_same_thread": False}, **options)
        _prepare_sqlite(engine, timeout, only_looks=only_looks)
        return engine
    milliseconds = int(timeout * 1000)
    arguments = {
        "connect_timeout": max(2, int(timeout)),
        "application_name": "inbox",
        "keepalives_idle": 30,
        "options": f"-c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}"
        + (" -c default_transaction_read_only=on" if only_looks else ""),
    }
    return sqlalchemy.create_engine(url, connect_args=arguments, **options)


def get_session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return a session factory; the latest one made is what `get_session()` without argument uses."""
    factory = sessionmaker(engine, expire_on_commit=False)
    _latest_factory[:] = [factory]
    return factory


@contextmanager
def get_session(factory: sessionmaker[Session] | None = None, *, read_only: bool = False) -> Iterator[Session]:
    """
    Run the block as one transaction: commit, or roll back when it raises, and close.

    Raises DatabaseUnavailableError, DatabaseBusyError or DatabaseRefusedError for the driver's errors.
    """
    if factory is None:
        if not _latest_factory:
            raise DatabaseRefusedError("no database is connected", hint="call get_session_factory(engine) first")
        factory = _latest_factory[0]
    with translated_errors(), factory() as session:
        if read_only:
            session.connection(execution_options={READ_ONLY: True})
        try:
            yield session
        except BaseException:
            session.rollback()
            raise
        session.commit()


@contextmanager
def joined(session: Session | None) -> Iterator[Session]:
    """Take part in the caller's transaction, or make one of our own when there is none."""
    if session is not None:
        yield session
    else:
        with get_session() as own:
            yield own


def test_connection(engine: Engine) -> bool:
    """Say whether the database answers a trivial query now. Never raises for a database that does not."""
    try:
        ping(engine)
    except WorkerError:
        return False
    return True


test_connection.__test__ = False  # type: ignore[attr-defined] # a public function, not a test to collect


def ping(engine: Engine) -> None:
    """Ask the database a trivial question; raises what `get_session` raises."""
    with translated_errors(), engine.connect().execution_options(**{READ_ONLY: True}) as connection:
        connection.execute(text("SELECT 1"))


def close(engine: Engine) -> None:
    """Close every pooled connection; the engine may be used again and then opens new ones."""
    engine.dispose()


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the driver's and SQLAlchemy's errors into the project's own, without statement or parameters."""
    try:
        yield
    except SQLAlchemyError as error:
        raise translate(error) from error


def translate(error: SQLAlchemyError) -> WorkerError:
    """Return the project's error for one of SQLAlchemy's: busy, unavailable or refused."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError(
            "no database connection became free in time", hint="raise DATABASE_MAX_CONNECTIONS"
        )
    origin = error.orig if isinstance(error, DBAPIError) else error
    what = " ".join(str(origin).split())
    if _is_busy(origin):
        return DatabaseBusyError(f"the database is busy: {what}")
    if classify_error(error) in RETRYABLE_TYPES:
        return DatabaseUnavailableError(
            f"the database does not answer: {what}", hint="check that it runs, and DATABASE_URL with `inbox check`"
        )
    return DatabaseRefusedError(f"the database refuses: {what}", hint="is the schema current? run `inbox db upgrade`")


def _is_busy(origin: BaseException | None) -> bool:
    if getattr(origin, "pgcode", None) in _BUSY_SQLSTATES:
        return True
    code = getattr(origin, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _BUSY_SQLITE_CODES


def _make_folder(database: str | None) -> None:
    if database and database != ":memory:":
        try:
            Path(database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the folder of the embedded database: {error.strerror}: {Path(database).parent}",
                hint="set STORAGE_BASE_PATH or DATABASE_URL to a place that can be written",
            ) from error


def _to_look_at(url: URL) -> URL:
    """
    Return the URL of the same SQLite file, opened so that nothing is made or changed (sqlite.org/uri.html).

    Without a log of writes beside it nobody has the file open, and it counts as unchangeable; else its readers' marks
    are read and not written. Opened as usual, the last one to close would fold the log into the file.
    """
    name = url.database or ""
    how = {"readonly_shm": "1"} if Path(f"{name}-wal").exists() else {"immutable": "1"}
    return URL.create(url.drivername, database=f"file:{quote(name)}", query={"mode": "ro", "uri": "true", **how})


def _prepare_sqlite(engine: Engine, timeout: float, *, only_looks: bool) -> None:
    """
    Make SQLite behave under several processes.

    Every writing transaction begins IMMEDIATE: a deferred one that upgrades fails with SQLITE_BUSY at once, whatever
    the timeout. WAL lets readers read meanwhile; synchronous=FULL makes a commit survive a power cut.
    """

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own transactions are off; ours are explicit
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
        if not only_looks:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        deferred = connection.get_execution_options().get(READ_ONLY)
        connection.exec_driver_sql("BEGIN DEFERRED" if deferred else "BEGIN IMMEDIATE")
