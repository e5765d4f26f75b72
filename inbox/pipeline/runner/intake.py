"""
The first leg, from the uploads to the database: watching, settling, and handing over what has settled.

Unpackers take the drops: claiming, extracting, registering. This thread alone scans, settles and remembers, and no
archive keeps it from that. What became of a drop it hears when its bell rings, or at the next round.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from inbox import events
from inbox.archives import UNWRITTEN, Completeness
from inbox.core.errors import DatabaseUnavailableError, StorageError
from inbox.core.retry import calculate_backoff
from inbox.database.connection import Sessions
from inbox.domain import Drop
from inbox.events import Emit
from inbox.lifecycle import BatchState
from inbox.pipeline.claiming import LockedOut
from inbox.pipeline.extracting import NoRoomError
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.runner.leaving import Leaving
from inbox.pipeline.runner.postponing import Postponing
from inbox.pipeline.runner.recollecting import Recollection
from inbox.pipeline.runner.timing import LONGEST_SETBACKS, Timing
from inbox.pipeline.runner.unfinished import UnfinishedClaims
from inbox.pipeline.settling import Settled, Settler, Waiting
from inbox.pipeline.unpackers.fates import (
    Busy,
    Changed,
    Died,
    Done,
    Fate,
    GivenBack,
    InTrouble,
    PutBack,
    Recognised,
    Task,
    TooSlow,
    Underway,
    Unpackers,
    Untaken,
    Unwritten,
)
from inbox.pipeline.watching import scan
from inbox.utils.clock import Clock
from inbox.utils.volume import Volume, storable

if TYPE_CHECKING:
    from inbox.utils.drops import Kind

NOT_WHOLE_YET_SECONDS: Final = 2.0
"""How soon a drop that changed under our hands is looked at again, at the least."""
_QUOTA_SECONDS: Final = 300.0
"""How soon an archive is tried again that a quota did not let in; only a try tells whether it would now."""
_SCOUT_SECONDS: Final = 5.0
"""How long a round waits, after trouble, for what becomes of the one drop that tries whether it is over."""


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass
class Intake:
    """From the uploads to the database: watching, settling, and handing over to unpackers."""

    volume: Volume
    sessions: Sessions
    clock: Clock
    settler: Settler
    unpackers: Unpackers
    reporter: Reporter
    timing: Timing
    emit: Emit
    quarantines_not_archives: bool = False
    """Whether what is no archive is moved away; else it is left where it is."""
    on_registered: Callable[[], None] = _nothing
    on_scanned: Callable[[Collection[Drop]], None] = lambda _drops: None
    should_stop: Callable[[], bool] = lambda: False
    _leaving: Leaving = field(init=False)
    _postponing: Postponing = field(init=False)
    _recollection: Recollection = field(init=False)
    _locked_out: LockedOut = field(init=False)
    _in_hand: set[str] = field(init=False, default_factory=set)
    """Drops that an unpacker has."""
    _crowded_out: set[str] = field(init=False, default_factory=set)
    """Drops that found no unpacker in the latest round."""
    _heard: deque[tuple[Task, Fate]] = field(init=False, default_factory=deque)
    """What became of drops, and is not taken in yet."""
    _unfinished: UnfinishedClaims = field(init=False)
    _trouble: tuple[str, Exception] | None = field(init=False, default=None)
    """What concerns all drops, and which of them met it."""
    _not_looked_at: StorageError | None = field(init=False, default=None)
    """Why a drop could not be looked at in the latest round."""
    _scout: str = field(init=False, default="")
    """The drop that was handed over to try whether the trouble is over; those that were in hand before tell nothing."""

    def __post_init__(self) -> None:
        self._leaving = Leaving(self.volume, self.reporter, self.timing, self.emit)
        self._postponing = Postponing(self.volume, self.clock)
        self._recollection = Recollection(self.volume, self.sessions, self.clock)
        self._unfinished = UnfinishedClaims(self.sessions, self.clock, self.emit)
        self._locked_out = LockedOut(self.clock, patience=self.timing.lease_life)

    @property
    def waiting(self) -> dict[str, str]:
        """Drops that are quiet and not whole, by name, each with the reason."""
        return {name: reason for name, (_, reason) in self._leaving.waiting.items()}

    def round(self) -> None:
        """
        Hear what became of the drops in hand, scan once, and hand over everything that may be taken.

        Raises StorageError or DatabaseUnavailableError when the service has to wait. A drop that cannot be looked at,
        or is too big for the room there is, does so only after the others had their turn.
        """
        self._end_unfinished()
        self._hear()
        for name in self._crowded_out:
            self.settler.announce(name)  # it need not become quiet for having found no place
        self._crowded_out.clear()
        set_back: list[Drop] = []
        for verdict in self._judge(self._scan()):
            if self.should_stop():
                return
            if verdict.drop.name in self._in_hand:
                continue
            if not isinstance(verdict, Settled):
                self._leave(verdict.drop, verdict.completeness)
            elif not self._is_in_good_hands(verdict.drop) and self._postponing.has_room(verdict.drop):
                if self._postponing.setbacks_of(verdict.drop):
                    set_back.append(verdict.drop)
                else:
                    self._hand_over(verdict.drop)
        for drop in set_back:  # last, or one that kills its unpacker would have the next one, too
            if not self.should_stop():
                self._hand_over(drop)
        self._tell_trouble()

    def _judge(self, drops: Collection[Drop]) -> Iterator[Settled | Waiting]:
        self._not_looked_at = None
        try:
            yield from self.settler.judge(drops)
        except StorageError as error:
            self._not_looked_at = error

    def _end_unfinished(self) -> None:
        """Give back claims of a database that went away; their ends may have counted all the same."""
        if self._unfinished.give_back({storable(name) for name in self._in_hand}):
            self.on_registered()

    def _scan(self) -> list[Drop]:
        """Return the drops there are, and forget those that are gone."""
        others: dict[str, Kind] = {}
        drops = scan(self.volume.uploads, others.__setitem__)
        self.volume.require()  # after the scan: what it did not find may have gone with the volume
        self.on_scanned(drops)
        self._leaving.leave_others(others)
        names = {drop.name for drop in drops}
        self._leaving.forget_all_but(names)
        self._postponing.forget_all_but(names)
        self._locked_out.forget_all_but(names)
        self._recollection.look_up(drops)
        return drops

    def next_look_in(self) -> float | None:
        """Return the seconds until something is expected to change without an event, or None."""
        waits = [wait for wait in (self._postponing.next_in(), self.settler.next_look_in()) if wait is not None]
        return max(min(waits), 0.0) if waits else None

    def is_at_rest(self) -> bool:
        """Say whether every drop has been decided about, or waits for its writer."""
        return self.next_look_in() is None and not (self._in_hand or self._crowded_out or self._unfinished)

    def _is_in_good_hands(self, drop: Drop) -> bool:
        """Say whether this very drop's batch is under way, or done and left here on purpose."""
        if not self._postponing.is_due(drop) or self._recollection.was_told(drop):
            return True
        record = self._recollection.batch_that_cares(drop)
        if record is not None and record.state is not BatchState.RECEIVED:  # somebody else had the room
            self._postponing.lacks_no_room(drop)
        return record is not None

    def _leave(self, drop: Drop, completeness: Completeness) -> None:
        self._postponing.lacks_no_room(drop)
        if not completeness.is_no_archive or not self.quarantines_not_archives:
            self._leaving.leave(drop, completeness, self.settler.age_of(drop))
        elif self._postponing.is_due(drop):
            self._hand_over(drop, completeness)

    def _hand_over(self, drop: Drop, verdict: Completeness | None = None) -> None:
        """Have a drop taken when somebody has time for it. After trouble one alone goes first, and is waited for."""
        if self._is_scouting() or not self.unpackers.has_place(drop):
            self._crowded_out.add(drop.name)
            return
        if verdict is None:
            self._leaving.take_up(drop)
            self._postponing.lacks_no_room(drop)
        self._in_hand.add(drop.name)
        self._scout = drop.name if self._trouble else ""
        self.unpackers.hand_over(
            Task(
                drop,
                self.settler.age_of(drop),
                self.clock.monotonic(),
                setbacks=self._postponing.setbacks_of(drop),
                verdict=verdict,
                passes_lock=self._locked_out.is_over(drop.name),
            )
        )
        if self._trouble:
            self.unpackers.wait(_SCOUT_SECONDS)
        self._hear()

    def _is_scouting(self) -> bool:
        return self._trouble is not None and self._scout in self._in_hand

    def _hear(self) -> None:
        """Take in what became of drops. Raises what concerns all of them."""
        met = None
        self._heard += self.unpackers.collect()
        while self._heard:
            task, fate = self._heard.popleft()
            self._in_hand.discard(task.drop.name)
            error = self._take_in(task.drop, fate)
            if error is not None:
                met = self._trouble = (task.drop.name, error)
            elif not isinstance(fate, Untaken | Busy | Changed | Died):
                self._trouble = None
        if met is not None:
            raise met[1]

    def _take_in(self, drop: Drop, fate: Fate) -> Exception | None:  # noqa: C901, PLR0912 - one branch for each fate
        """Remember what became of a drop; returns trouble that concerns all."""
        if not isinstance(fate, Busy):
            self._locked_out.got(drop.name)
        match fate:
            case Done(batch_id):
                self._recollection.note_batch(drop, batch_id)
                self._postponing.end_setbacks(drop)
                self.on_registered()
            case Recognised(stays):
                if stays:
                    self._recollection.note_told(drop)
            case Underway(batch_id):
                self._recollection.note_batch(drop, batch_id)
            case Busy():
                self._postponing.postpone(drop, NOT_WHOLE_YET_SECONDS)
            case Changed():
                self.settler.hold(drop, NOT_WHOLE_YET_SECONDS)
            case Unwritten():
                self.settler.leave(drop, UNWRITTEN)
                self._leave(drop, UNWRITTEN)
            case PutBack(error, patience_seconds):
                self.settler.hold(drop, patience_seconds)
                reason = f"it looks damaged, and may still be being written: {error}"
                self.emit(events.DropWaits(storable(drop.name), error.reason_code, reason))
            case TooSlow(error):
                if not self._postpone_longer(drop):
                    self.emit(events.DropWaits(storable(drop.name), error.reason_code, str(error)))
            case Died(batch_id):
                if batch_id is not None:
                    self._recollection.note_batch(drop, batch_id)
                self._postpone_longer(drop)
                self.on_registered()  # it may have come that far, or be out of attempts
            case GivenBack(batch_id, error, wait_seconds):
                self._recollection.note_batch(drop, batch_id)
                self._postponing.count_setback(drop)
                by_quota = isinstance(error, NoRoomError) and error.is_by_quota
                self._postponing.postpone(drop, _QUOTA_SECONDS if by_quota else wait_seconds)
                if isinstance(error, NoRoomError):
                    self._postponing.lacks_room(drop, error)
                elif isinstance(error, StorageError):
                    return error
            case InTrouble(error, left):
                if left is not None:
                    self._unfinished.add(left)
                if not isinstance(error, DatabaseUnavailableError):  # it may be this drop's alone: others come first
                    self._postpone_longer(drop)
                return error
        return None

    def _postpone_longer(self, drop: Drop) -> int:
        """Let a drop wait, longer each time; returns how often in a row it had to before."""
        before = self._postponing.count_setback(drop)
        seconds = calculate_backoff(min(before, LONGEST_SETBACKS), self.timing.retry_base_seconds)
        self._postponing.postpone(drop, seconds)
        return before

    def _tell_trouble(self) -> None:
        """Raise what still concerns all drops, or else what keeps one of them from being taken."""
        if self._trouble is not None:
            name, error = self._trouble
            if self._is_scouting() or name in self._crowded_out or self._postponing.is_waiting(name):
                raise error
            self._trouble = None
        if self._not_looked_at is not None:
            raise self._not_looked_at
        want = self._postponing.want_of_room()
        if want is not None:
            raise want
