"""Files on their way: claimed in pages, recorded in groups, given back, taken over."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Executable, and_, bindparam, case, false, func, select, text, true, update
from sqlalchemy.exc import DataError, StatementError
from sqlalchemy.orm import Session

from inbox.database.leasing import drop_leases, new_token, open_lease
from inbox.database.models import FILES, FileExtraction
from inbox.database.pages import as_page, as_recordset, in_pages, is_postgresql
from inbox.domain import ClaimedFile, Outcome
from inbox.lifecycle import CLAIMABLE_FILE_STATES, LEASED_FILE_STATES, FileState

_unfinished = FileExtraction.processing_completed_at.is_(None)


@dataclass(frozen=True, slots=True)
class Page:
    """Claimed files under one lease."""

    token: str
    files: tuple[ClaimedFile, ...]


def counts_as_retry() -> Any:
    """An attempt is counted when it begins: the first is no retry, every later one is."""
    return case((FileExtraction.status == FileState.RETRYING, 1), else_=0)


_DUE: Final = (
    select(FILES.c.id)
    .where(_unfinished, FILES.c.status.in_(CLAIMABLE_FILE_STATES), FILES.c.due_at <= bindparam("at"))
    .order_by(FILES.c.due_at, FILES.c.position)
    .limit(bindparam("page_rows"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_CLAIM: Final = (
    update(FILES)
    .where(FILES.c.id.in_(select(_DUE.c.id)))
    .values(
        status=FileState.PROCESSING,
        lease_token=bindparam("new_token"),
        processing_started_at=bindparam("at"),
        retry_count=FILES.c.retry_count + counts_as_retry(),
    )
    .returning(
        FILES.c.doc_id,
        FILES.c.batch_id,
        FILES.c.run_id,
        FILES.c.file_path,
        FILES.c.file_name,
        FILES.c.member_path,
        FILES.c.file_type,
        FILES.c.size_bytes,
        func.coalesce(FILES.c.content_sha256, ""),
        FILES.c.retry_count + 1,
        FILES.c.lease_token,
        FILES.c.position,
    )
)
_IN_ORDER_OF_THE_INDEX: Final = text("SET LOCAL enable_sort = off")
"""PostgreSQL: with stale statistics it expects hardly a due file, and would read and sort all of them for each page."""


def claim_files(
    owner: str,
    *,
    limit: int,
    now: datetime,
    life: timedelta,
    session: Session,
    finished_tokens: Collection[str] = (),
) -> Page:
    """
    Claim up to `limit` due files for `owner` under one new lease, oldest due first, and count the attempt of each.

    On PostgreSQL rows that others are claiming are passed over (SKIP LOCKED); SQLite's one writer excludes others
    anyway. `finished_tokens` are leases of earlier pages, whose every outcome is recorded: they end here.
    """
    drop_leases(finished_tokens, session=session)
    token = new_token()
    if is_postgresql(session):
        session.execute(_IN_ORDER_OF_THE_INDEX)
    rows = session.connection().execute(_CLAIM, {"at": now, "page_rows": limit, "new_token": token}).all()
    if not rows:
        return Page(token, ())
    open_lease(owner, now=now, life=life, session=session, token=token)
    in_order = sorted(rows, key=attrgetter("batch_id", "position"))
    return Page(token, tuple(ClaimedFile(*values) for *values, _position in in_order))


def record_outcomes(outcomes: Sequence[Outcome], *, session: Session) -> set[str]:
    """
    Write a group of outcomes and return the doc_ids whose outcome counts.

    An outcome counts only while its row is still in processing under the outcome's own token; a missing doc_id means
    that the lease was lost. When the database refuses the group because of one value, the group is halved until that
    file alone pays: it fails as PERMANENT with the database's reason.
    """
    if not outcomes:
        return set()
    try:
        with session.begin_nested():
            return _write(outcomes, session)
    except ValueError as error:
        return _record_without_the_poison(outcomes, error, session)
    except StatementError as error:
        if not _is_about_a_value(error):
            raise
        return _record_without_the_poison(outcomes, error, session)


def find_recorded(outcomes: Sequence[Outcome], *, session: Session) -> set[str]:
    """
    Return the doc_ids whose row carries this very outcome, for a writer that never heard whether its commit counted.

    No other attempt ends in the same microsecond with the same duration, and is due again in the same one.
    """
    wanted = {outcome.doc_id: outcome for outcome in outcomes}
    found: set[str] = set()
    for page in in_pages(list(wanted)):
        query = select(FILES.c.doc_id, FILES.c.due_at, FILES.c.processing_duration_ms).where(FILES.c.doc_id.in_(page))
        for doc_id, due_at, duration_ms in session.execute(query):
            values = _values(wanted[doc_id])
            if (due_at, duration_ms) == (values["due_at"], values["processing_duration_ms"]):
                found.add(doc_id)
    return found


_VALUE_REFUSED: Final = frozenset({"54000", "54001", "22P05", "22P02"})  # limits, untranslatable or invalid text


def _is_about_a_value(error: StatementError) -> bool:
    return (
        isinstance(error, DataError)
        or isinstance(error.orig, ValueError)
        or getattr(error.orig, "pgcode", None) in _VALUE_REFUSED
    )


def _record_without_the_poison(outcomes: Sequence[Outcome], error: Exception, session: Session) -> set[str]:
    if len(outcomes) > 1:
        middle = len(outcomes) // 2
        return record_outcomes(outcomes[:middle], session=session) | record_outcomes(outcomes[middle:], session=session)
    (poisoned,) = outcomes
    reason = " ".join(str(getattr(error, "orig", None) or error).split())[:500]
    plain = Outcome(
        doc_id=poisoned.doc_id,
        token=poisoned.token,
        state=FileState.FAILED,
        finished_at=poisoned.finished_at,
        duration_ms=poisoned.duration_ms,
        error_type="PERMANENT",
        error_message=f"the database cannot store this result: {reason}".replace("\0", ""),
    )
    return _write([plain], session)


def release_files(token: str, *, session: Session, except_doc_ids: Collection[str] = ()) -> int:
    """Give back, uncounted, every file still in processing under `token`; returns how many."""
    statement = (
        update(FileExtraction)
        .where(_held(token), FileExtraction.doc_id.not_in(except_doc_ids))
        .values(
            status=case((FileExtraction.retry_count > 0, FileState.RETRYING), else_=FileState.PENDING),
            retry_count=case((FileExtraction.retry_count > 0, FileExtraction.retry_count - 1), else_=0),
            lease_token=None,
            processing_started_at=None,
        )
        .returning(FileExtraction.doc_id)
        .execution_options(synchronize_session=False)
    )
    return len(session.execute(statement).all())


def find_held_files(token: str | None, *, session: Session) -> list[FileExtraction]:
    """Return the files in processing under `token` (a page at most); None finds those started without a lease."""
    return list(session.scalars(select(FileExtraction).where(_held(token))))


def claimed_of(file: FileExtraction) -> ClaimedFile:
    """Return a row in processing as what its holder had in hand."""
    return ClaimedFile(
        doc_id=file.doc_id,
        batch_id=file.batch_id,
        run_id=file.run_id,
        file_path=file.file_path,
        file_name=file.file_name,
        member_path=file.member_path,
        file_type=file.file_type,
        size_bytes=file.size_bytes,
        sha256=file.content_sha256 or "",
        attempt=file.retry_count + 1,
        token=file.lease_token or "",
    )


def next_due_at(*, session: Session) -> datetime | None:
    """Return when the next waiting file is due, or None when none waits."""
    query = (
        select(FileExtraction.due_at)
        .where(_unfinished, FileExtraction.status.in_(CLAIMABLE_FILE_STATES))
        .order_by(FileExtraction.due_at)
        .limit(1)
    )
    return session.scalars(query).one_or_none()


def fail_unfinished_files(batch_id: str, *, error_type: str, message: str, now: datetime, session: Session) -> int:
    """End every unfinished file of a batch that ran out of its time; outcomes still under way no longer count."""
    statement = (
        update(FileExtraction)
        .where(_unfinished, FileExtraction.batch_id == batch_id)
        .values(
            status=FileState.FAILED,
            lease_token=None,
            processing_completed_at=now,
            error_type=error_type,
            error_message=message,
        )
        .returning(FileExtraction.doc_id)
        .execution_options(synchronize_session=False)
    )
    return len(session.execute(statement).all())


def _held(token: str | None) -> Any:
    return and_(
        _unfinished,
        FileExtraction.status.in_(LEASED_FILE_STATES),
        FileExtraction.lease_token.is_not_distinct_from(token),
    )


_KEYS: Final = (FILES.c.doc_id, FILES.c.lease_token)
_WRITTEN: Final = (
    FILES.c.status,
    FILES.c.raw_extraction,
    FILES.c.processing_completed_at,
    FILES.c.processing_duration_ms,
    FILES.c.due_at,
    FILES.c.error_type,
    FILES.c.error_message,
    FILES.c.skip_reason,
)


def _values(outcome: Outcome) -> dict[str, Any]:
    retrying = outcome.state is FileState.RETRYING
    return {
        "doc_id": outcome.doc_id,
        "lease_token": outcome.token,
        "status": outcome.state,
        "raw_extraction": outcome.result,
        "processing_completed_at": None if retrying else outcome.finished_at,
        "processing_duration_ms": outcome.duration_ms,
        "due_at": outcome.due_at or outcome.finished_at,
        "error_type": outcome.error_type,
        "error_message": outcome.error_message,
        "skip_reason": outcome.skip_reason,
    }


def _write(outcomes: Sequence[Outcome], session: Session) -> set[str]:
    on_postgresql = is_postgresql(session)
    page = as_page(map(_values, outcomes), _WRITTEN, postgresql=on_postgresql)
    return set(session.connection().scalars(_recording(on_postgresql), {"rows": page}))


@cache
def _recording(on_postgresql: bool) -> Executable:
    """
    Return the one statement over a group.

    The state is asked for in a form that a planner cannot estimate. Told that hardly any row is in processing, as its
    statistics may say, it would loop over the whole group once for each of them.
    """
    source = as_recordset([*_KEYS, *_WRITTEN], postgresql=on_postgresql)
    return (
        update(FILES)
        .where(
            FILES.c.doc_id == source.c.doc_id,
            FILES.c.lease_token.is_not_distinct_from(source.c.lease_token),
            case((FILES.c.status.in_(LEASED_FILE_STATES), true()), else_=false()),
        )
        .values({item.name: source.c[item.name] for item in _WRITTEN} | {"lease_token": None})
        .returning(FILES.c.doc_id)
    )
