"""Opening: settings checked, database connected, schema current; what every command begins with."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Engine, make_url

from inbox.config import Config
from inbox.core.errors import (
    ConfigurationError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    StorageError,
    describe_error,
)
from inbox.core.retry import calculate_backoff
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.database.facts import known_volume
from inbox.database.migrating import require_current, upgrade
from inbox.handlers.registry import HandlerSettings
from inbox.utils.mounts import filesystem_type, is_network
from inbox.utils.volume import Volume

T = TypeVar("T")

LOGGER: Final = "inbox"
_WAIT_BASE_SECONDS: Final = 0.5
_WAIT_MAX_SECONDS: Final = 5.0
_BATCH_ID: Final = re.compile("[0-9a-f]{64}")
_OWN_SHARE: Final = 0.95
"""What a handler that can end by itself gets of its time, before the worker process is killed for it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A checked configuration with its database at hand."""

    config: Config
    engine: Engine
    sessions: Sessions
    volume: Volume


@contextmanager
def opened(config: Config, *, migrate: bool, pause: Callable[[float], bool] | None = None) -> Iterator[Opened]:
    """
    Check the settings, connect, bring the schema up to date (or require it to be), and close at the end.

    With `pause` a database that does not answer is waited for; it takes seconds, and returns False to give up, in which
    case the error comes out. Raises ConfigurationError, DatabaseUnavailableError, DatabaseRefusedError.
    """
    if not migrate:
        _require_file(config)  # first: whoever asks the wrong folder must not make it
    config.validate(make_folders=False)  # the database knows whether the volume is the one to make them on
    refuse_sqlite_on_network(config)
    engine = create_engine(config)
    try:
        sessions = Sessions(get_session_factory(engine))

        def prepare() -> str | None:
            (upgrade if migrate else require_current)(engine)
            with sessions.reading() as session:
                return known_volume(session=session)

        known = patiently(prepare, pause)
        yield Opened(config, engine, sessions, replace(volume_of(config), id=known or ""))
    finally:
        close(engine)


def patiently(begin: Callable[[], T], pause: Callable[[float], bool] | None) -> T:
    """
    Return what `begin` returns, as soon as the database and the volume allow it; what is waited for is told once.

    `pause` takes seconds, and returns False to give up, in which case the error comes out, as it does without `pause`.
    """
    logger, said = logging.getLogger(LOGGER), set[str]()
    for failures in count():
        try:
            return begin()
        except (DatabaseUnavailableError, StorageError) as error:
            if pause is None:
                raise
            what = "database" if isinstance(error, DatabaseUnavailableError) else "volume"
            text = f"waiting for the {what}: {describe_error(error)}"
            if text not in said:
                said.add(text)
                logger.warning("%s", text)
            if not pause(calculate_backoff(failures, _WAIT_BASE_SECONDS, _WAIT_MAX_SECONDS)):
                raise
    raise AssertionError("counting does not end")


@contextmanager
def looked_at(config: Config) -> Iterator[Sessions]:
    """
    Yield the database to ask, and change nothing: no folder, no file, no schema.

    Raises ConfigurationError, DatabaseUnavailableError, DatabaseRefusedError.
    """
    refuse_sqlite_on_network(config)
    _require_file(config)
    engine = create_engine(config, only_looks=True)
    try:
        require_current(engine)
        yield Sessions(get_session_factory(engine))
    finally:
        close(engine)


def volume_of(config: Config) -> Volume:
    return Volume.at(
        config.storage_base_path, uploads=config.storage_uploads_dir, extracted=config.storage_extracted_dir
    )


def locality_of(config: Config) -> str:
    """Say whether the uploads lie on a `local` or a `network` file system."""
    return "network" if is_network(filesystem_type(volume_of(config).uploads)) else "local"


def unannounced_on(config: Config) -> str | None:
    """Say why the file system of the uploads cannot tell of every drop, or None when it can."""
    kind = filesystem_type(volume_of(config).uploads)
    return f"{kind} announces no changes made elsewhere" if is_network(kind) else None


def refuse_sqlite_on_network(config: Config) -> None:
    """Raise ConfigurationError for an SQLite file on a network file system, where its locking corrupts it."""
    url = make_url(config.database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    kind = filesystem_type(Path(url.database).parent)
    if is_network(kind):
        raise ConfigurationError(
            f"SQLite cannot live on a network file system ({kind}): {url.database}",
            hint="set DATABASE_URL to PostgreSQL, or to sqlite:////a/local/folder/inbox.db",
        )


def _require_file(config: Config) -> None:
    """Raise DatabaseRefusedError for an SQLite file that is not there: connecting would leave an empty one."""
    url = make_url(config.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise DatabaseRefusedError(
            "there is no database yet",
            subject=url.database or "",
            hint="start `inbox run`, or run `inbox db upgrade`; if it runs already, name its folder with --storage",
        )


def refuse_to_forget(config: Config) -> None:
    """
    Raise DatabaseRefusedError when the embedded database is gone and what was unpacked by its word is still there.

    An empty one in its place would know nothing of what was done, and everything would be done again.
    """
    url = make_url(config.database_url)
    if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
        return
    try:
        unpacked = [path for path in volume_of(config).extracted.iterdir() if _BATCH_ID.fullmatch(path.name)]
    except OSError:
        return
    if unpacked:
        raise DatabaseRefusedError(
            f"the database file is gone, and {len(unpacked)} batches that it knew are on the volume",
            subject=url.database or "",
            hint="put it back from a backup; to begin with an empty one, run `inbox db upgrade`",
        )


def handler_settings(config: Config) -> HandlerSettings:
    return HandlerSettings(
        modules=config.handlers,
        handler_url=config.handler_url or None,
        handler_version=config.handler_version,
        timeout_seconds=config.file_processing_timeout * _OWN_SHARE,
        unreadable=config.unreadable_files,
        max_text_chars=config.max_text_chars,
        storage_base=config.storage_base_path,
    )
