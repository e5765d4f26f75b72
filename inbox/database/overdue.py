"""What waits for longer than anything may: a clock that was ahead has written the time, and was set right since."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, bindparam, case, null, or_, select, update
from sqlalchemy.orm import Session

from inbox.core.errors import ErrorType
from inbox.core.retry import LONGEST_WAIT_SECONDS, MAX_DELAY_SECONDS
from inbox.database.leasing import affected
from inbox.database.models import FILES, ProcessingJob
from inbox.database.pages import PAGE_ROWS
from inbox.lifecycle import CLAIMABLE_FILE_STATES, BatchState, FileState

SKEW: Final = timedelta(minutes=1)
"""How far apart the clocks of machines may be without anybody minding."""

_LONGEST_WAIT: Final = timedelta(seconds=LONGEST_WAIT_SECONDS)
_LONGEST_WAIT_UNASKED: Final = timedelta(seconds=2 * MAX_DELAY_SECONDS)
"""Of a file that no server asked to wait, and of one that a paused handler has put off."""
_LONGEST_WAIT_OF_A_BATCH: Final = timedelta(seconds=MAX_DELAY_SECONDS)
_NO_WAIT: Final = timedelta(0)
_SET_DUE: Final = (
    update(FILES)
    .where(FILES.c.id == bindparam("row"), FILES.c.due_at == bindparam("seen"), FILES.c.lease_token.is_(None))
    .values(due_at=bindparam("due"), processing_started_at=bindparam("began"))
)


def bring_back(*, now: datetime, session: Session) -> int:
    """
    Make due what no rule lets wait for so long; returns how many files and batches.

    A file that has its turn waits for nothing. A file to be retried waits for as long as its last attempt said: when
    that seems to lie in the future, the wait begins now. Nothing waits for more than `LONGEST_WAIT_SECONDS`, what was
    not asked to for no more than two minutes, and a batch for no longer than the longest backoff.
    """
    late = now + SKEW
    statement = (
        update(ProcessingJob)
        .where(ProcessingJob.status == BatchState.RECEIVED, ProcessingJob.due_at > late + _LONGEST_WAIT_OF_A_BATCH)
        .values(due_at=now, updated_at=now)
        .execution_options(synchronize_session=False)
    )
    count = affected(session.execute(statement))
    is_pending = FILES.c.status == FileState.PENDING
    began_at = FILES.c.processing_started_at
    was_asked = FILES.c.error_type.is_not_distinct_from(str(ErrorType.RATE_LIMIT))
    longest_wait = case((was_asked, late + _LONGEST_WAIT), else_=late + _LONGEST_WAIT_UNASKED)
    impossible = or_(
        and_(is_pending, FILES.c.turn.is_not(None)),
        and_(began_at.is_(None), FILES.c.due_at > late + _LONGEST_WAIT_UNASKED),
        began_at > late,
        FILES.c.due_at > longest_wait,
    )
    query = (
        select(FILES.c.id, FILES.c.due_at, case((is_pending, null()), else_=began_at), was_asked)
        .where(
            FILES.c.processing_completed_at.is_(None),
            FILES.c.due_at > late,
            FILES.c.status.in_(CLAIMABLE_FILE_STATES),
            impossible,
        )
        .limit(PAGE_ROWS)
    )
    while rows := session.execute(query).all():
        session.connection().execute(_SET_DUE, [_brought_back(*row, now=now) for row in rows])
        count += len(rows)
    return count


def _brought_back(
    row: Any, due_at: datetime, began_at: datetime | None, was_asked: bool, *, now: datetime
) -> dict[str, Any]:
    wait = due_at - began_at if began_at is not None else _NO_WAIT
    due = now + wait if _NO_WAIT < wait <= (_LONGEST_WAIT if was_asked else _LONGEST_WAIT_UNASKED) else now
    return {"row": row, "seen": due_at, "due": due, "began": now if began_at is not None else None}
