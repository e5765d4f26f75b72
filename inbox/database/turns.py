"""
Turns: in which order files get their first attempt, so that no batch waits behind another one's whole length.

Start-time fair queuing (Goyal, Vin and Cheng, 1996) with files as packets: a batch's files are numbered on from the
turn that is being served when they come, and claims go by number. Batches that wait at the same time advance at the
same pace, a new small one is served at once, and since each starts behind what is being served, however many small
ones cannot keep a large one waiting.
"""

from typing import Any, Final

from sqlalchemy import Select, case, func, select, text
from sqlalchemy.orm import Session

from inbox.database.models import FILES
from inbox.database.pages import is_postgresql
from inbox.lifecycle import CLAIMABLE_FILE_STATES

HAS_TURN: Final = (FILES.c.processing_completed_at.is_(None), FILES.c.turn.is_not(None))
"""Files before their first outcome; those that are due again have no turn, but a time."""
WAITS: Final = FILES.c.status.in_(CLAIMABLE_FILE_STATES)

_SERVED: Final[Select[Any]] = select(FILES.c.turn).where(*HAS_TURN, WAITS).order_by(FILES.c.turn).limit(1)
_LAST_IN_HAND: Final[Select[Any]] = select(FILES.c.turn).where(*HAS_TURN).order_by(FILES.c.turn.desc()).limit(1)
_IN_ORDER_OF_THE_INDEX: Final = text("SET LOCAL enable_sort = off")


def keep_to_indexes(session: Session) -> None:
    """
    Have the rest of this transaction read files in the order of an index.

    With stale statistics PostgreSQL expects hardly a waiting file, and would read and sort all of them for each page.
    """
    if is_postgresql(session):
        session.execute(_IN_ORDER_OF_THE_INDEX)


def turn_being_served(session: Session) -> int | None:
    """Return the turn of the first file that waits, or None when none does."""
    keep_to_indexes(session)
    return session.execute(_SERVED).scalar_one_or_none()


def next_turn(session: Session) -> int:
    """
    Return the turn of the first file of a batch that comes now.

    It is the one behind the turn being served. When no file waits it is the one behind those in hand, which may be
    given back; 0 when there are none.
    """
    served = turn_being_served(session)
    if served is None:
        served = session.execute(_LAST_IN_HAND).scalar_one_or_none()
    return 0 if served is None else served + 1


def turn_after_release(served: int | None) -> Any:
    """
    Return the turn of a file that is given back while `served` is the turn being served: it is among the next.

    Its own, if that has been passed, would be where the next batch to come begins, far ahead of those that wait.
    """
    return FILES.c.turn if served is None else case((FILES.c.turn < served, served), else_=FILES.c.turn)


def ranked(*conditions: Any) -> Any:
    """Return a table `ranked` of the ids of these files, each with its rank from 0 in its batch's order."""
    rank = func.row_number().over(order_by=(FILES.c.position, FILES.c.doc_id)) - 1
    return select(FILES.c.id, rank.label("rank")).where(*conditions).subquery("ranked")
