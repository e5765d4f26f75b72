"""Mounting: the volume that the database's rows speak of, made sure of before anything is made, taken or deleted."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, event

from inbox.app.opening import Opened
from inbox.core.errors import ConfigurationError, StorageError
from inbox.core.rotation import SharedRotatingFileHandler
from inbox.database import facts
from inbox.database.connection import Sessions
from inbox.utils.clock import Clock
from inbox.utils.filesystem import ensure_directory_exists
from inbox.utils.sentinel import make_sentinel, read_sentinel
from inbox.utils.volume import Volume

_ADOPT: Final = "mount the right volume; if this is the one from now on, say `inbox adopt`"


def mounted(at_hand: Opened, clock: Clock) -> Opened:
    """
    Return what is at hand with a volume that is known, all of its folders made.

    Where neither knows the other yet, the volume gets its sentinel and the database notes it. Raises ConfigurationError
    for another volume, StorageError for none, and for one that does not take what is written.
    """
    volume = replace(at_hand.volume, id=_recognise(at_hand.volume, at_hand.sessions, clock))
    at_hand.config.validate()
    try:
        volume.make()
    except OSError as error:
        what = f"the folders cannot be made: {error.strerror}"
        raise StorageError(what, subject=str(error.filename or volume.base)) from error
    return replace(at_hand, volume=volume)


def adopt(at_hand: Opened, clock: Clock) -> str:
    """
    Make the volume that is mounted now the one that the database's rows speak of; return its id.

    Raises StorageError when it cannot be written. Services that run already go on when they are started again.
    """
    volume_id = _sentinel_of(at_hand.volume)
    with at_hand.sessions.writing() as session:
        facts.replace_volume(volume_id, now=clock.now(), session=session)
    return volume_id


def hold_log(volume: Volume, logger: logging.Logger) -> None:
    """Make no log file on the volume before it is known."""
    for handler in _files_on(volume, logger):
        handler.hold()


def keep_log_to(volume: Volume, logger: logging.Logger) -> None:
    """Let the log file, where it lies on the volume, be opened only while that is there."""
    for handler in _files_on(volume, logger):
        handler.require = volume.require
        handler.let_go()


def _files_on(volume: Volume, logger: logging.Logger) -> list[SharedRotatingFileHandler]:
    files = [handler for handler in logger.handlers if isinstance(handler, SharedRotatingFileHandler)]
    return [handler for handler in files if Path(handler.baseFilename).is_relative_to(volume.base)]


def require_before_connecting(engine: Engine, volume: Volume) -> None:
    """Let an embedded database, where it lies on the volume, be opened only while that is there."""
    database = engine.url.database or ""
    if engine.dialect.name == "sqlite" and Path(database).is_relative_to(volume.base):
        event.listen(engine, "do_connect", lambda *_: volume.require())


def _recognise(volume: Volume, sessions: Sessions, clock: Clock) -> str:
    with sessions.reading() as session:
        known = facts.known_volume(session=session)
    try:
        found = read_sentinel(volume.sentinel)
    except OSError as error:
        raise StorageError(f"the volume cannot be read: {error.strerror}", subject=str(volume.base)) from error
    if known is not None and found is None:  # an empty folder: the bare mount point, most likely
        raise StorageError("the volume is not there", subject=str(volume.base), hint=_ADOPT)
    if known is None:
        found = _sentinel_of(volume)
        with sessions.writing() as session:
            known = facts.note_volume(found, now=clock.now(), session=session)
    if known != found:
        raise ConfigurationError(f"the database belongs to another volume than {volume.base}", hint=_ADOPT)
    return known


def _sentinel_of(volume: Volume) -> str:
    try:
        ensure_directory_exists(volume.private)
        return make_sentinel(volume.sentinel)
    except OSError as error:
        what = f"the volume cannot be marked: {error.strerror}"
        raise StorageError(what, subject=str(volume.sentinel)) from error
