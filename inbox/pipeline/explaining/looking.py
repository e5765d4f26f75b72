"""Looking: the facts about one file, each found by the function by which the service finds it."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inbox.archives import UNWRITTEN, Completeness, Plan, Terms, check_members, plan_extraction
from inbox.core.errors import (
    ArchiveRefusedError,
    NotSettledError,
    PermanentError,
    StorageError,
    WorkerError,
    describe_error,
)
from inbox.database import batches, leasing
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.domain import Drop
from inbox.lifecycle import BatchState
from inbox.pipeline.claiming import Recognised, Underway, identify, look_at_lock, recognise
from inbox.pipeline.explaining.explanation import (
    Contents,
    Facts,
    KnownBatch,
    Limited,
    Lock,
    Place,
    Quiet,
    Refusal,
    Room,
    Standing,
    Whole,
)
from inbox.pipeline.extracting import NoRoomError, require_room
from inbox.pipeline.reporting import never_unpacked
from inbox.pipeline.runner.recollecting import is_cared_for, left_there_on_purpose
from inbox.pipeline.runner.timing import Timing
from inbox.pipeline.settling import BEING_WRITTEN, Settled, Settler, look_inside
from inbox.pipeline.watching import is_temporary
from inbox.utils.clock import Clock
from inbox.utils.drops import Kind, is_partly_unwritten, kind_of, look_at, opened, require_unchanged
from inbox.utils.volume import Volume, find_by_stored_name, storable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SHOWN_SKIPPED: Final = 20


@dataclass(frozen=True, slots=True)
class Service:
    """The service whose decision is foreseen, in plain values. Its clock is trusted like the service trusts it."""

    volume: Volume
    terms: Terms
    quiet: timedelta
    trust_age: bool
    timing: Timing
    quarantines_not_archives: bool = False


class Looker:
    """
    Finds out about files what the service would.

    Without `sessions` the database is not asked, and `why_not` says why.
    """

    def __init__(self, service: Service, clock: Clock, sessions: Sessions | None, *, why_not: str = "") -> None:
        self._service = service
        self._volume = service.volume
        self._clock = clock
        self._sessions = sessions
        self._why_not = why_not

    def find(self, file: str) -> Path:
        """
        Return what `file` names: a drop in the uploads by its name, else a path.

        Raises PermanentError when there is nothing of that name.
        """
        if "/" not in file and file not in {"", ".", ".."}:
            with suppress(OSError):
                drop = find_by_stored_name(self._volume.uploads, file)
                if drop is not None:
                    return drop
        if not os.path.lexists(file):
            raise PermanentError(
                "there is no such file, and no drop of this name in the uploads",
                subject=storable(file),
                hint="if it has been taken, `inbox status NAME` knows it",
            )
        return Path(os.path.abspath(file))  # noqa: PTH100 - Path.resolve would follow links

    def look(self, path: Path, *, deep: bool = False) -> Facts:
        """
        Return the facts about the file at this path; with `deep` every member is decoded too.

        Raises StorageError when the volume is in trouble, PermanentError when the file is gone.
        """
        place = self._place(path)
        if place is Place.UPLOADS:
            path = self._volume.uploads / path.name
        facts = Facts(
            name=storable(path.name),
            path=storable(str(path)),
            place=place,
            kind=_kind(path),
            limits=self._limited(),
            is_temporary_name=is_temporary(path.name),
        )
        drop = look_at(path)
        if drop is None:
            return facts
        facts = replace(
            facts, size_bytes=drop.identity.size_bytes, changed_at=datetime.fromtimestamp(drop.changed_at, UTC)
        )
        try:
            return self._look_inside(drop, facts, deep=deep)
        except NotSettledError:
            return replace(facts, has_changed=True)

    def _look_inside(self, drop: Drop, facts: Facts, *, deep: bool) -> Facts:
        completeness = None
        if facts.place is Place.UPLOADS:
            quiet, completeness = self._settle(drop)
            facts = replace(facts, quiet=quiet, lock=self._lock(drop))
        completeness = completeness or look_inside(drop).completeness
        facts = replace(facts, whole=_whole(completeness))
        if completeness.is_no_archive and self._service.quarantines_not_archives:
            return replace(facts, refusal=Refusal(completeness.reason_code, completeness.reason, "", "drop a ZIP", 0.0))
        if not completeness.complete and completeness.reason_code != BEING_WRITTEN:
            return facts
        with opened(drop) as fd:
            batch_id = identify(fd, should_stop=lambda: False)
            facts = self._ask_database(drop, batch_id, replace(facts, batch_id=batch_id))
            facts = self._plan(drop, fd, facts, deep=deep)
            require_unchanged(fd, drop)
        return facts

    def _settle(self, drop: Drop) -> tuple[Quiet, Completeness | None]:
        """Ask a settler that sees the drop for the first time, as that of a service that starts now would."""
        settler = Settler(self._service.quiet, self._clock, trust_age=True)
        verdict = next(iter(settler.judge([drop])), None)
        quiet = Quiet(
            age_seconds=round(self._clock.now().timestamp() - drop.changed_at, 3),
            wanted_seconds=self._service.quiet.total_seconds(),
            left_seconds=round(settler.next_look_in() or 0.0, 3),
            is_certain=self._service.trust_age,
        )
        if verdict is None:
            return quiet, None
        return quiet, Completeness(complete=True) if isinstance(verdict, Settled) else verdict.completeness

    def _lock(self, drop: Drop) -> Lock | None:
        try:
            holder = look_at_lock(self._volume.locks, drop.name)
        except StorageError:  # another user's folder, say
            return None
        return Lock(is_held=holder is not None, process=holder.process if holder is not None else None)

    def _ask_database(self, drop: Drop, batch_id: str, facts: Facts) -> Facts:
        if self._sessions is None:
            return replace(facts, database=self._why_not)
        try:
            with self._sessions.reading() as session:
                return replace(facts, known=self._recall(drop, batch_id, facts.place, session))
        except WorkerError as error:
            return replace(facts, database=describe_error(error))

    def _recall(self, drop: Drop, batch_id: str, place: Place, session: "Session") -> KnownBatch | None:
        """Return the batch of this very drop, where the service would recall one, else that of its content."""
        now = self._clock.now()
        stored = Drop(storable(drop.name), drop.path, drop.identity, drop.changed_at)
        if place is Place.UPLOADS:
            for record in batches.find_batches_of_drops([stored.name], session=session):
                if record.is_of(stored) and left_there_on_purpose(record, drop, self._volume):
                    standing = (
                        Standing.CARED_FOR
                        if is_cared_for(record, drop, self._volume, now=now)
                        else _standing(record, stored, now)
                    )
                    return _known_batch(record, standing, session)
        found = batches.find_batches([batch_id], session=session).get(batch_id)
        return _known_batch(found, _standing(found, stored, now), session) if found is not None else None

    def _plan(self, drop: Drop, fd: int, facts: Facts, *, deep: bool) -> Facts:
        terms = self._service.terms
        try:
            plan = plan_extraction(fd, terms)
            facts = replace(facts, contents=_contents(plan), room=self._room(plan))
            if deep:
                check_members(fd, plan, terms.limits)
                facts = replace(facts, contents=_contents(plan, is_decoded=True))
        except ArchiveRefusedError as error:
            patience = 0.0
            if facts.place is Place.UPLOADS:
                if error.damaged and is_partly_unwritten(fd):
                    return replace(facts, whole=_whole(UNWRITTEN))
                patience = self._service.timing.patience_with(error, self._clock.now().timestamp() - drop.changed_at)
            refusal = Refusal(error.reason_code, error.message, error.subject, error.hint, round(patience, 3))
            return replace(facts, refusal=refusal)
        return facts

    def _room(self, plan: Plan) -> Room:
        extracted = self._volume.extracted
        folder = next(path for path in (extracted, *extracted.parents) if os.access(path, os.F_OK))
        try:
            needed_bytes, is_enough = require_room(folder, plan), True
        except NoRoomError as error:
            needed_bytes, is_enough = error.needed_bytes, False
        return Room(needed_bytes, shutil.disk_usage(folder).free, is_enough)

    def _place(self, path: Path) -> Place:
        folder = path.parent.resolve()
        uploads = self._volume.uploads.resolve()
        if folder == uploads:
            return Place.UPLOADS
        for place, top in (
            (Place.BELOW_UPLOADS, uploads),
            (Place.PROCESSED, self._volume.processed.resolve()),
            (Place.QUARANTINE, self._volume.quarantine.resolve()),
        ):
            if folder.is_relative_to(top):
                return place
        return Place.ELSEWHERE

    def _limited(self) -> Limited:
        limits = self._service.terms.limits
        return Limited(
            limits.max_archive_bytes,
            limits.max_member_bytes,
            limits.max_members,
            limits.max_compression_ratio,
            limits.max_seconds,
        )


def _whole(completeness: Completeness) -> Whole:
    return Whole(completeness.complete, completeness.reason_code, completeness.reason, completeness.is_no_archive)


def _kind(path: Path) -> Kind:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise PermanentError("the file is gone", subject=storable(path.name)) from error
    except OSError as error:
        raise StorageError(f"the file cannot be looked at: {error.strerror}", subject=storable(path.name)) from error
    return kind_of(mode)


def _standing(record: BatchRecord, stored: Drop, now: datetime) -> Standing:
    match recognise(record, stored):
        case Recognised():
            return Standing.RECOGNISED
        case Underway():
            return Standing.UNDER_WAY
        case None:
            is_free = record.state is BatchState.RECEIVED and record.due_at <= now
            return Standing.TO_EXTRACT if is_free else Standing.UNDER_WAY


def _known_batch(record: BatchRecord, standing: Standing, session: "Session") -> KnownBatch:
    owner, expires_at = leasing.holder_of_batch(record.batch_id, session=session) or (None, None)
    return KnownBatch(
        batch_id=record.batch_id,
        state=str(record.state),
        drop=record.drop_name,
        received_at=record.created_at,
        due_at=record.due_at,
        reason_code=record.reason_code,
        reason=record.reason,
        standing=standing,
        never_unpacked=never_unpacked(record),
        is_reported=record.reported_at is not None,
        lease_owner=owner,
        lease_expires_at=expires_at,
    )


def _contents(plan: Plan, *, is_decoded: bool = False) -> Contents:
    return Contents(
        members=len(plan.files) + len(plan.skipped),
        files=len(plan.files),
        skipped=len(plan.skipped),
        folders=len(plan.folders),
        declared_bytes=plan.declared_bytes,
        archive_bytes=plan.archive_bytes,
        ratio=round(plan.declared_bytes / plan.archive_bytes, 2),
        skipped_members=plan.skipped[:SHOWN_SKIPPED],
        is_decoded=is_decoded,
    )
