"""
Schema migrations, run at start and by `inbox db upgrade`; safe with several starting at once.

PostgreSQL: an advisory lock lets one migrate while the others wait. SQLite: the whole migration is one writing
transaction, and the others wait for it. Alembic is imported only when there is something to do, since it costs half a
second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, inspect, text

from inbox.core.errors import DatabaseRefusedError
from inbox.database.connection import READ_ONLY, retry_when_busy, translated_errors, unhurried

if TYPE_CHECKING:
    from alembic.config import Config as AlembicConfig

HEAD: Final = "0005"
"""The newest revision; a test holds it against the migrations folder."""

VERSION_TABLE: Final = "inbox_schema"
_FOLDER: Final = Path(__file__).with_name("migrations")
_LONGEST_SECONDS: Final = 3600.0
_ADVISORY_LOCK: Final = 0x696E626F78  # "inbox"


def current_revision(engine: Engine) -> str | None:
    """Return the schema's revision, or None when the database has none of our tables."""
    with translated_errors(), engine.connect().execution_options(**{READ_ONLY: True}) as connection:
        return _revision(connection)


@retry_when_busy
def upgrade(engine: Engine) -> bool:
    """
    Bring the schema to the newest revision; True when something had to be done.

    Raises DatabaseRefusedError when the schema is newer than this program, DatabaseUnavailableError when there is no
    database to upgrade.
    """
    if current_revision(engine) == HEAD:
        return False
    with translated_errors(), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        found = _revision(connection)
        if found == HEAD:
            return False
        _refuse_unknown(found)
        with unhurried(connection, _LONGEST_SECONDS):
            _run(connection)
    return True


def require_current(engine: Engine) -> None:
    """Raise DatabaseRefusedError unless the schema is at the newest revision."""
    found = current_revision(engine)
    if found != HEAD:
        raise DatabaseRefusedError(
            f"the schema is at {found or 'nothing'}, this program needs {HEAD}", hint="run `inbox db upgrade`"
        )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608 - our own constant


def _refuse_unknown(revision: str | None) -> None:
    known = {path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py")}
    if revision is not None and revision not in known:
        raise DatabaseRefusedError(
            f"the schema is at revision {revision}, which this program does not know",
            hint="a newer inbox has upgraded it; run that version",
        )


def _run(connection: Connection) -> None:
    from alembic import command  # half a second, and needed once in the life of a database

    command.upgrade(alembic_config(connection), "head")


def alembic_config(connection: Connection | None = None) -> "AlembicConfig":
    """Return Alembic's configuration for our migrations, bound to an open connection."""
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config
