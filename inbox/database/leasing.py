"""
Leases: take with an owner, a token and an expiry; extend; give back; take over.

A claim writes its token into the claimed rows and one row into `leases`. Whoever deletes that row decides what becomes
of the work, so of a finishing holder, an impatient rescuer and a second rescuer exactly one wins.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import CursorResult, delete, insert, or_, select, update
from sqlalchemy.orm import Session

from inbox.database.models import Lease, ProcessingJob


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A lease that was taken away from its owner."""

    token: str
    owner: str


def new_token() -> str:
    return uuid.uuid4().hex


def open_lease(owner: str, *, now: datetime, life: timedelta, session: Session, token: str | None = None) -> str:
    """Record a lease for `owner` that expires `life` from `now`; return its token."""
    token = token or new_token()
    session.execute(insert(Lease).values(token=token, owner=owner, expires_at=now + life))
    return token


def extend_leases(owners: Collection[str], *, now: datetime, life: timedelta, session: Session) -> int:
    """The heartbeat: all leases of these owners now expire `life` from `now`. Returns how many there are."""
    result = session.execute(update(Lease).where(Lease.owner.in_(owners)).values(expires_at=now + life))
    return affected(result)


def drop_leases(tokens: Collection[str], *, session: Session) -> int:
    """End these leases; returns how many were still there."""
    if not tokens:
        return 0
    return affected(session.execute(delete(Lease).where(Lease.token.in_(tokens))))


def find_expired(*, now: datetime, dead_owners: Collection[str], session: Session) -> list[ExpiredLease]:
    """Return the leases that may be taken over: past their expiry, or of an owner known to be gone."""
    over = or_(Lease.expires_at <= now, Lease.owner.in_(dead_owners)) if dead_owners else Lease.expires_at <= now
    rows = session.execute(select(Lease.token, Lease.owner).where(over).order_by(Lease.expires_at))
    return [ExpiredLease(token, owner) for token, owner in rows]


def leases_of(owner: str, *, session: Session) -> list[ExpiredLease]:
    """Return what this owner holds, to be taken over when it is known to be gone."""
    return [ExpiredLease(token, owner) for token in session.scalars(select(Lease.token).where(Lease.owner == owner))]


def take_over(lease: ExpiredLease, *, now: datetime, owner_is_dead: bool, session: Session) -> bool:
    """Delete the lease if it is still over; True means the caller, and nobody else, decides about its work."""
    statement = delete(Lease).where(Lease.token == lease.token)
    if not owner_is_dead:
        statement = statement.where(Lease.expires_at <= now)
    return affected(session.execute(statement)) == 1


def is_held(token: str, owner: str, *, now: datetime, session: Session) -> bool:
    """Say whether the lease is still this owner's and has not expired."""
    query = select(Lease.token).where(Lease.token == token, Lease.owner == owner, Lease.expires_at > now)
    return session.scalars(query).one_or_none() is not None


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
