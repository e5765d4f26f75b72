"""
Leases: take with an owner and a token; extend; confirm; give back; take over.

A claim writes its token into the claimed rows and one row into `leases`. Whoever deletes that row decides what becomes
of the work, so of a finishing holder, an impatient rescuer and a second rescuer exactly one wins.

No two clocks are ever compared. `expires_at` is for people to read, and the version that every heartbeat changes: a
lease is over when it was seen at the same version for `TAKEOVER_SHARE` of its life, on the clock of whoever looks.
Heartbeats come every `HEARTBEAT_SHARE` of the life, and a holder trusts a confirmation for `TRUST_SHARE` of it, counted
from before it asked. Trust ends before anybody can have seen the confirmed version for long enough; and from the last
heartbeat of a holder that dies to its rescue (a round until it is first seen, the wait, a round until that is noticed)
it takes less than one life.
"""

import secrets
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import CursorResult, case, delete, insert, literal, select, update
from sqlalchemy.orm import Session

from inbox.database.models import Lease, ProcessingJob
from inbox.database.types import UtcDateTime

HEARTBEAT_SHARE: Final = 1 / 6
TRUST_SHARE: Final = 1 / 3
TAKEOVER_SHARE: Final = 1 / 2

_A_SECOND_IN_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease as it was when it was read; another `expires_at` means that its holder has been heard of since."""

    token: str
    owner: str
    expires_at: datetime


def new_token() -> str:
    return uuid.uuid4().hex


def open_lease(owner: str, *, now: datetime, life: timedelta, session: Session, token: str | None = None) -> str:
    """Record a lease for `owner`, to be extended within its `life`; return its token."""
    token = token or new_token()
    session.execute(insert(Lease).values(token=token, owner=owner, expires_at=now + life))
    return token


def extend_leases(owners: Collection[str], *, now: datetime, life: timedelta, session: Session) -> int:
    """The heartbeat: all leases of these owners get a new version. Returns how many there are."""
    statement = update(Lease).where(Lease.owner.in_(owners)).values(expires_at=_another(now + life))
    return affected(session.execute(statement))


def confirm_lease(token: str, *, now: datetime, life: timedelta, session: Session) -> bool:
    """Extend one lease if it is still there; False means it was lost. Of this and a takeover exactly one happens."""
    statement = update(Lease).where(Lease.token == token).values(expires_at=_another(now + life)).returning(Lease.token)
    return session.execute(statement).scalar_one_or_none() is not None


def drop_leases(tokens: Collection[str], *, session: Session) -> int:
    """End these leases; returns how many were still there."""
    if not tokens:
        return 0
    return affected(session.execute(delete(Lease).where(Lease.token.in_(tokens))))


def find_leases(*, session: Session) -> list[HeldLease]:
    """Return every lease there is, at its present version."""
    return _leases(select(Lease.token, Lease.owner, Lease.expires_at), session)


def leases_of(owner: str, *, session: Session) -> list[HeldLease]:
    """Return what this owner holds, to be taken over when it is known to be gone."""
    return _leases(select(Lease.token, Lease.owner, Lease.expires_at).where(Lease.owner == owner), session)


def take_over(lease: HeldLease, *, owner_is_dead: bool, session: Session) -> bool:
    """
    Delete the lease, if its version is still the one that was seen or the owner is known to be gone.

    True means that the caller, and nobody else, decides about its work.
    """
    statement = delete(Lease).where(Lease.token == lease.token)
    if not owner_is_dead:
        statement = statement.where(Lease.expires_at == lease.expires_at)
    return affected(session.execute(statement)) == 1


def holder_of_batch(batch_id: str, *, session: Session) -> tuple[str, datetime] | None:
    """Return who holds the lease on a batch and when that expires, or None."""
    query = (
        select(Lease.owner, Lease.expires_at)
        .join(ProcessingJob, ProcessingJob.lease_token == Lease.token)
        .where(ProcessingJob.batch_id == batch_id)
    )
    row = session.execute(query).one_or_none()
    return (row.owner, row.expires_at) if row is not None else None


def open_tokens(*, session: Session) -> set[str]:
    """Return the tokens of all leases."""
    return set(session.scalars(select(Lease.token)))


def lease_owners(*, session: Session) -> set[str]:
    """Return everybody who holds a lease."""
    return set(session.scalars(select(Lease.owner).distinct()))


def affected(result: object) -> int:
    """Return how many rows a writing statement changed."""
    return result.rowcount if isinstance(result, CursorResult) else 0


def _leases(query: Any, session: Session) -> list[HeldLease]:
    return [HeldLease(*row) for row in session.execute(query.order_by(Lease.expires_at, Lease.token))]


def _another(at: datetime) -> Any:
    """
    Return a version that is not the present one, whatever the clock does.

    The part below a second is drawn by lot, so that a clock that stands still or repeats itself brings no version back
    that somebody may have seen.
    """
    drawn = at.replace(microsecond=secrets.randbelow(_A_SECOND_IN_MICROSECONDS))
    beside = drawn + timedelta(microseconds=1)
    return case(
        (Lease.expires_at == drawn, literal(beside, UtcDateTime)),
        else_=literal(drawn, UtcDateTime),
    )
