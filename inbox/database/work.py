"""Files on their way: claimed in pages, recorded in groups, given back, taken over."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import Executable, Integer, and_, bindparam, case, false, func, select, true, union_all, update
from sqlalchemy.exc import DataError, StatementError
from sqlalchemy.orm import Session

from inbox.database.leasing import drop_leases, new_token, open_lease
from inbox.database.models import FILES, FileExtraction
from inbox.database.pages import as_page, as_recordset, in_pages, is_postgresql
from inbox.database.turns import HAS_TURN, WAITS, keep_to_indexes, turn_after_release, turn_being_served
from inbox.domain import ClaimedFile, Outcome
from inbox.lifecycle import LEASED_FILE_STATES, FileState

_unfinished = FileExtraction.processing_completed_at.is_(None)


@dataclass(frozen=True, slots=True)
class Page:
    """Claimed files under one lease."""

    token: str
    files: tuple[ClaimedFile, ...]


def counts_as_retry() -> Any:
    """An attempt is counted when it begins: the first is no retry, every later one is."""
    return case((FileExtraction.status == FileState.RETRYING, 1), else_=0)


_AGAIN: Final = (
    select(FILES.c.id)
    .where(_unfinished, FILES.c.turn.is_(None), WAITS, FILES.c.due_at <= bindparam("at"))
    .order_by(FILES.c.due_at, FILES.c.position)
    .limit(bindparam("again_rows"))
    .with_for_update(skip_locked=True)
    .cte("again")
)
_FRESH: Final = (
    select(FILES.c.id)
    .where(*HAS_TURN, WAITS)
    .order_by(FILES.c.turn)
    .limit(select(bindparam("page_rows", type_=Integer) - func.count()).select_from(_AGAIN).scalar_subquery())
    .with_for_update(skip_locked=True)
    .cte("fresh")
)
_PICKED: Final = union_all(select(_AGAIN.c.id), select(_FRESH.c.id)).limit(bindparam("page_rows")).cte("picked")
"""The second limit cuts nothing off: it tells PostgreSQL how few rows these are, which the first one hides from it."""
_FIRST_AGAIN: Final = (
    select(FILES.c.due_at).where(_unfinished, FILES.c.turn.is_(None), WAITS).order_by(FILES.c.due_at).limit(1)
)
_FIRST_FRESH: Final = select(FILES.c.due_at).where(*HAS_TURN, WAITS).order_by(FILES.c.turn).limit(1)
_CLAIM: Final = (
    update(FILES)
    .where(FILES.c.id.in_(select(_PICKED.c.id)))
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
        FILES.c.turn,
        FILES.c.position,
    )
)


def claim_files(
    owner: str,
    *,
    limit: int,
    now: datetime,
    life: timedelta,
    session: Session,
    again: int | None = None,
    finished_tokens: Collection[str] = (),
) -> Page:
    """
    Claim up to `limit` files for `owner` under one new lease, and count the attempt of each.

    First come files that are due again, oldest first, but no more than `again` of them (half a page, unless given) as
    long as others wait; then those before their first attempt, by turn.

    On PostgreSQL rows that others are claiming are passed over (SKIP LOCKED); SQLite's one writer excludes others
    anyway. `finished_tokens` are leases of earlier pages, whose every outcome is recorded: they end here.
    """
    drop_leases(finished_tokens, session=session)
    token = new_token()
    again = -(-limit // 2) if again is None else again
    keep_to_indexes(session)
    bound = {"at": now, "page_rows": limit, "again_rows": again, "new_token": token}
    rows = session.connection().execute(_CLAIM, bound).all()
    if not rows and again == 0:
        rows = session.connection().execute(_CLAIM, bound | {"again_rows": limit}).all()
    if not rows:
        return Page(token, ())
    open_lease(owner, now=now, life=life, session=session, token=token)
    in_order = sorted(rows, key=lambda row: (row.turn or 0, row.batch_id, row.position))
    return Page(token, tuple(ClaimedFile(*values) for *values, _turn, _position in in_order))


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
        handler=poisoned.handler,
        handler_version=poisoned.handler_version,
    )
    return _write([plain], session)


def release_files(token: str, *, session: Session) -> int:
    """Give back, uncounted, every file still in processing under `token`, to be among the next; returns how many."""
    turn = turn_after_release(turn_being_served(session))
    statement = (
        update(FileExtraction)
        .where(_held(token))
        .values(
            status=case((FileExtraction.retry_count > 0, FileState.RETRYING), else_=FileState.PENDING),
            retry_count=case((FileExtraction.retry_count > 0, FileExtraction.retry_count - 1), else_=0),
            turn=turn,
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
    """Return when the next waiting file is due, in the past for one before its first attempt; None when none waits."""
    return session.scalars(_FIRST_FRESH).one_or_none() or session.scalars(_FIRST_AGAIN).one_or_none()


def fail_unfinished_files(
    batch_id: str, *, error_type: str, message: str, now: datetime, session: Session, limit: int = 10_000
) -> int:
    """
    End unfinished files of a batch that ran out of its time, up to `limit` of them; returns how many.

    Outcomes still under way no longer count. A million at once would take longer than a statement may.
    """
    some = select(FileExtraction.id).where(_unfinished, FileExtraction.batch_id == batch_id).limit(limit)
    statement = (
        update(FileExtraction)
        .where(_unfinished, FileExtraction.id.in_(some))
        .values(
            status=FileState.FAILED,
            lease_token=None,
            processing_completed_at=now,
            error_type=error_type,
            error_message=message,
            handler=None,
            handler_version=None,
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
    FILES.c.handler,
    FILES.c.handler_version,
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
        "handler": outcome.handler,
        "handler_version": outcome.handler_version,
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
        .values({item.name: source.c[item.name] for item in _WRITTEN} | {"lease_token": None, "turn": None})
        .returning(FILES.c.doc_id)
    )
