"""What the database knows of the world outside: which volume its rows speak of."""

from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from inbox.database.models import Fact
from inbox.database.pages import is_postgresql

_VOLUME: Final = "volume"


def known_volume(*, session: Session) -> str | None:
    """Return the id of the volume that the rows speak of, or None while none has been noted."""
    return session.scalar(select(Fact.value).where(Fact.name == _VOLUME))


def note_volume(volume_id: str, *, now: datetime, session: Session) -> str:
    """Note the volume unless one is known; return the one that is known then."""
    dialect = postgresql if is_postgresql(session) else sqlite
    values = {"name": _VOLUME, "value": volume_id, "noted_at": now}
    session.execute(dialect.insert(Fact).values(values).on_conflict_do_nothing(index_elements=["name"]))
    return known_volume(session=session) or volume_id


def replace_volume(volume_id: str, *, now: datetime, session: Session) -> None:
    """An operator's word: from now on the rows speak of this volume."""
    dialect = postgresql if is_postgresql(session) else sqlite
    values = {"value": volume_id, "noted_at": now}
    insertion = dialect.insert(Fact).values(name=_VOLUME, **values)
    session.execute(insertion.on_conflict_do_update(index_elements=["name"], set_=values))
