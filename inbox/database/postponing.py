"""Files that wait for their handler: given back, and attempts that said nothing about them with them."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Executable, case, false, true, update
from sqlalchemy.orm import Session

from inbox.database.models import FILES
from inbox.database.pages import as_page, as_recordset, is_postgresql
from inbox.lifecycle import LEASED_FILE_STATES, FileState


def put_off(files: Sequence[tuple[str, str, datetime]], *, session: Session) -> int:
    """
    Give files back uncounted, in one statement: `doc_id`, the token they are held under, when they are due again.

    A file that is no longer in processing under its token is left alone. Returns how many went back.
    """
    rows = [{"doc_id": doc_id, "lease_token": token, "due_at": due_at} for doc_id, token, due_at in files]
    return _run(rows, session, held=True)


def refund_attempts(files: Sequence[tuple[str, datetime]], *, session: Session) -> int:
    """
    Take back the latest counted attempt of files that wait for another, in one statement: `doc_id`, when they are due.

    A file that somebody has claimed since, or that has come to rest, is left alone. Returns how many there were.
    """
    rows: list[dict[str, Any]] = [{"doc_id": doc_id, "due_at": due_at} for doc_id, due_at in files]
    return _run(rows, session, held=False)


def _run(rows: list[dict[str, Any]], session: Session, *, held: bool) -> int:
    on_postgresql = is_postgresql(session)
    page = as_page(rows, (FILES.c.due_at,), postgresql=on_postgresql)
    return len(session.connection().scalars(_uncounting(on_postgresql, held), {"rows": page}).all())


@cache
def _uncounting(on_postgresql: bool, held: bool) -> Executable:
    """
    Return the one statement over a page; the state is asked for in the form that recording outcomes uses.

    The first attempt of a file is no retry, so what is left without any is pending.
    """
    source = as_recordset([FILES.c.doc_id, FILES.c.lease_token, FILES.c.due_at], postgresql=on_postgresql)
    states = LEASED_FILE_STATES if held else (FileState.RETRYING,)
    retried = FILES.c.retry_count > 0
    return (
        update(FILES)
        .where(
            FILES.c.doc_id == source.c.doc_id,
            FILES.c.lease_token.is_not_distinct_from(source.c.lease_token),
            case((FILES.c.status.in_(states), true()), else_=false()),
        )
        .values(
            status=case((retried, FileState.RETRYING), else_=FileState.PENDING),
            retry_count=case((retried, FILES.c.retry_count - 1), else_=0),
            lease_token=None,
            processing_started_at=None,
            turn=None,
            due_at=source.c.due_at,
        )
        .returning(FILES.c.doc_id)
    )
