"""
Engines, sessions and what their errors mean.

`get_session()` is one transaction: committed at the end of the block, rolled back on an exception, closed in any case,
with the driver's errors turned into the project's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from inbox.core.errors import (
    ConfigurationError,
    DatabaseBusyError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    WorkerError,
)
from inbox.core.retry import retry_with_backoff
from inbox.database.failures import READ_ONLY_SQLSTATE, translate, translated_errors
from inbox.database.patience import bounded
from inbox.database.types import encode_json

READ_ONLY: Final = "inbox_read_only"
_RECYCLE_SECONDS: Final = 1800
_STATEMENT_SHARE: Final = 2
"""A statement may take so many times DATABASE_TIMEOUT: it may wait for a lock as long as that, and then work."""
_KEEPALIVE: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_PUT_BACK: Final = "stop inbox, put the database back (the whole of it, or a backup), and start again"
_ANSWER_SECONDS: Final = 2.0
"""How much longer than the server's own limit on a statement its answer is waited for."""

__all__ = ["translate", "translated_errors"]


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


def create_engine(config: DatabaseSettings, *, only_looks: bool = False, makes_file: bool = True) -> Engine:
    """
    Return a pooled engine with pre-ping and timeouts. Nothing is connected yet.

    One that `only_looks` cannot write, and leaves no trace on the volume either; it is for a question of a moment.
    An SQLite file that is not there is made by the first connection if the engine `makes_file`, and never again.
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
        if not only_looks and url.database not in {None, "", ":memory:"}:
            _keep_to_one_file(engine, str(make_url(config.database_url).database), makes_file=makes_file)
        return engine
    engine = sqlalchemy.create_engine(
        url, connect_args=_postgresql_arguments(timeout, only_looks=only_looks), **options
    )
    event.listen(engine, "handle_error", _leave_if_read_only)
    return engine


def _postgresql_arguments(timeout: float, *, only_looks: bool) -> dict[str, Any]:
    """
    Bound every wait at both ends: for a connection, a lock, a statement, and for a peer that has vanished.

    A peer that acknowledges nothing is given up by the kernel, here and at the server, whose locks would else stay.
    """
    milliseconds = int(timeout * 1000)
    settings = {
        "lock_timeout": milliseconds,
        "statement_timeout": milliseconds * _STATEMENT_SHARE,
        "idle_in_transaction_session_timeout": milliseconds,
        **{f"tcp_{name}": seconds for name, seconds in _KEEPALIVE.items()},
    }
    if only_looks:
        settings["default_transaction_read_only"] = 1
    return {
        "connect_timeout": max(2, int(timeout)),
        "application_name": "inbox",
        "tcp_user_timeout": milliseconds,
        **_KEEPALIVE,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        "connection_factory": bounded(timeout * _STATEMENT_SHARE + _ANSWER_SECONDS),
    }


def _leave_if_read_only(context: Any) -> None:
    """Count a server that takes no writes as lost, and every connection to it: the next one may lead to its heir."""
    if getattr(context.original_exception, "pgcode", None) == READ_ONLY_SQLSTATE:
        context.is_disconnect = True


@contextmanager
def unhurried(connection: Connection, seconds: float) -> Iterator[None]:
    """Let statements of the transaction take so long, as those of a migration may."""
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    before = driver.longest_seconds
    connection.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
    driver.longest_seconds = seconds + _ANSWER_SECONDS
    try:
        yield
    finally:
        driver.longest_seconds = before


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
    """Ask the database whether it is there and takes writes; raises what `get_session` raises."""
    with translated_errors(), engine.connect().execution_options(**{READ_ONLY: True}) as connection:
        if connection.dialect.name == "postgresql":
            if connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on":
                connection.invalidate()
                raise DatabaseUnavailableError("the database takes no writes", hint="is it a standby?")
        else:
            connection.execute(text("SELECT 1"))


def close(engine: Engine) -> None:
    """Close every pooled connection; the engine may be used again and then opens new ones."""
    engine.dispose()


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


def _keep_to_one_file(engine: Engine, name: str, *, makes_file: bool) -> None:
    """
    Refuse to go on when the file was deleted or another one put in its place.

    SQLite would write on into the deleted one, and make an empty one for the next connection.
    """
    known: list[tuple[int, int]] = []

    def require_the_file() -> None:
        try:
            status = Path(name).stat()
        except OSError as error:
            if known or not makes_file:
                raise DatabaseRefusedError(
                    f"the database file is gone: {error.strerror}", subject=name, hint=_PUT_BACK
                ) from error
            return
        if known and known[0] != (status.st_dev, status.st_ino):
            raise DatabaseRefusedError("the database file was replaced under our hands", subject=name, hint=_PUT_BACK)

    @event.listens_for(engine, "do_connect")
    def _connecting(_dialect: object, _record: object, _arguments: object, _options: object) -> None:
        require_the_file()

    @event.listens_for(engine, "connect")
    def _connected(_connection: object, _record: object) -> None:
        if not known:
            status = Path(name).stat()
            known.append((status.st_dev, status.st_ino))

    @event.listens_for(engine, "checkout")
    def _used(_connection: object, _record: object, _proxy: object) -> None:
        require_the_file()
