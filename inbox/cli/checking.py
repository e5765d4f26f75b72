"""`inbox check`: every finding says what was looked at, what was found, and what to do."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import make_url

from inbox.app.opening import handler_settings, refuse_sqlite_on_network, volume_of
from inbox.config import Config
from inbox.core.errors import ConfigurationError, WorkerError
from inbox.database.connection import close, create_engine, ping
from inbox.database.migrating import HEAD, current_revision
from inbox.handlers.registry import load_handlers
from inbox.urls import redact_url
from inbox.utils.mounts import filesystem_type, is_network

_LITTLE_BYTES: Final = 1024**3
_INOTIFY_LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_FEW_INSTANCES: Final = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend` is empty when there is nothing to do."""

    about: str
    verdict: Literal["ok", "note", "bad"]
    what: str
    mend: str = ""

    @property
    def is_bad(self) -> bool:
        return self.verdict == "bad"


def findings(load: Callable[[], Config]) -> list[Finding]:
    """Look at everything; one bad part does not hide the others, but without settings there is nothing to see."""
    try:
        config = load()
    except ConfigurationError as error:
        return [Finding("settings", "bad", problem) for problem in error.problems or (str(error),)]
    parts = (_folders, _file_system, _database, _handlers)
    return [Finding("settings", "ok", "every value is usable"), *(item for part in parts for item in part(config))]


def _folders(config: Config) -> Iterator[Finding]:
    try:
        config.validate(make_folders=False)
    except ConfigurationError as error:
        for problem in error.problems:
            what, _, mend = problem.partition("; ")
            yield Finding("database" if what.startswith("DATABASE") else "folders", "bad", what, mend)
        return
    volume = volume_of(config)
    base = volume.base
    folders = (volume.uploads, volume.extracted, volume.processed, volume.quarantine, volume.receipts)
    missing = ", ".join(f"{folder.name}/" for folder in folders if not folder.exists())
    if missing:
        what = f"{base} has no {missing}" if base.exists() else f"{base} is not there"
        mend = "if it should not be empty: mount the volume, or name the right one"
        yield Finding("folders", "note", f"{what}: made at the next start of inbox", mend)
    else:
        yield Finding("folders", "ok", f"{base} is there and writable, on one file system")


def _file_system(config: Config) -> Iterator[Finding]:
    base = next(path for path in (config.storage_base_path, *config.storage_base_path.parents) if path.exists())
    kind = filesystem_type(base)
    if is_network(kind):
        yield Finding("file system", "note", f"{kind} is a network file system: drops are found by scanning")
    else:
        yield Finding("file system", "ok", f"{kind}: changes are announced, scans stay behind them")
    free = shutil.disk_usage(base).free
    if free < _LITTLE_BYTES:
        yield Finding(
            "disk", "note", f"{free / 1024**2:,.0f} MiB free", "free some space; archives that do not fit wait"
        )
    else:
        yield Finding("disk", "ok", f"{free / 1024**3:,.1f} GiB free")
    yield from _inotify()


def _inotify() -> Iterator[Finding]:
    try:
        limit = int(_INOTIFY_LIMIT.read_text("ascii"))
    except (OSError, ValueError):
        return
    if limit < _FEW_INSTANCES:
        yield Finding("inotify", "note", f"only {limit} instances per user", "sysctl fs.inotify.max_user_instances=512")


def _database(config: Config) -> Iterator[Finding]:
    shown = redact_url(config.database_url)
    try:
        refuse_sqlite_on_network(config)
        url = make_url(config.database_url)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            yield Finding("database", "ok", f"{shown}: will be made at the first start")
            return
        engine = create_engine(config)
        try:
            ping(engine)
            revision = current_revision(engine)
        finally:
            close(engine)
    except WorkerError as error:
        yield Finding("database", "bad", f"{shown}: {error.message}", error.hint)
        return
    yield Finding("database", "ok", f"{shown} answers")
    if revision == HEAD:
        yield Finding("schema", "ok", f"at revision {revision}")
    elif config.database_migrate:
        yield Finding("schema", "note", f"at {revision or 'nothing'}; the next start brings it to {HEAD}")
    else:
        yield Finding("schema", "bad", f"at {revision or 'nothing'}, needed {HEAD}", "run `inbox db upgrade`")


def _handlers(config: Config) -> Iterator[Finding]:
    try:
        registry = load_handlers(handler_settings(config))
    except WorkerError as error:
        yield Finding("handlers", "bad", error.message, error.hint)
        return
    for spec in registry.specs:
        yield Finding("handlers", "ok", f"{spec.name} for {', '.join(spec.patterns)}")
