"""
The supervisor of the unpacker processes: hands them drops, kills at the limit, and answers for the dead.

The first process is always there; the others are started when they are needed, and end when they have been idle for a
while. One that has grown is replaced, which gives its memory back.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, Protocol

from inbox.core.errors import WorkerError, describe_error
from inbox.core.retry import calculate_backoff
from inbox.domain import Drop
from inbox.events import Emit, Event, TroubleBegan, UnpackerDied
from inbox.pipeline.unpackers.fates import Died, Fate, Task, Untaken
from inbox.pipeline.unpackers.process import DRAIN, READY
from inbox.pipeline.unpackers.seats import Running, Seat, free_seat, may_have_seat
from inbox.utils.clock import Clock
from inbox.utils.volume import storable

IDLE_SECONDS: Final = 60.0
"""After so long without a drop all unpackers but the first end."""
MOST_RESIDENT_BYTES: Final = 256 * 1024**2
"""One that keeps more memory than this after a drop is replaced."""
GRACE_SECONDS: Final = 30.0
"""How long an unpacker has, beyond the time for one archive, to notice by itself that it is over."""
_TICK_SECONDS: Final = 1.0
_RESTART_BASE_SECONDS: Final = 0.5
_RESTART_MAX_SECONDS: Final = 30.0


def _nothing() -> None:
    """Nobody wants to know."""


class End(Enum):
    """Why an unpacker ended that had something in hand."""

    DIED = "died"
    TOO_SLOW = "too slow"
    STOPPED = "stopped"


class Spawn(Protocol):
    """Starts an unpacker process for a seat, under an owner's name of its own. Raises OSError when there is no room."""

    def __call__(self, seat: int, owner: str) -> tuple[BaseProcess, Connection]: ...


class Settle(Protocol):
    """Decides about the batch that an ended unpacker held. Raises WorkerError when that is not possible yet."""

    def __call__(self, owner: str, end: End) -> None: ...


@dataclass(frozen=True, slots=True)
class UnpackerPlan:
    """The plain values of the supervisor; `archive_time` is what reading, and then extracting, may take."""

    unpackers: int
    owner: str
    archive_time: timedelta
    grace: timedelta = timedelta(seconds=GRACE_SECONDS)

    @property
    def limit_seconds(self) -> float:
        return (self.archive_time + self.grace).total_seconds()


@dataclass(frozen=True, slots=True)
class _Debt:
    owner: str
    end: End
    task: Task | None
    batch_id: str


@dataclass
class UnpackerProcesses:
    """Runs in a thread of its own; drops may be handed over, and questions asked, from any other."""

    plan: UnpackerPlan
    spawn: Spawn
    settle: Settle
    clock: Clock
    emit: Emit
    _on_fate: Callable[[], object] = field(init=False, default=_nothing)
    _seats: list[Seat] = field(init=False)
    _debts: list[_Debt] = field(init=False, default_factory=list)
    _fates: list[tuple[Task, Fate]] = field(init=False, default_factory=list)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _draining: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._seats = [Seat() for _ in range(self.plan.unpackers)]
        self._bell, self._hammer = Pipe(duplex=False)

    def call_when_over(self, on_fate: Callable[[], object]) -> None:
        self._on_fate = on_fate

    def has_place(self, drop: Drop) -> bool:
        with self._changed:
            return not self._draining and may_have_seat(drop, self._seats, self.clock.monotonic())

    def hand_over(self, task: Task) -> None:
        with self._changed:
            seat = None if self._draining else free_seat(self._seats, self.clock.monotonic())
            if seat is None:  # its process has died since there was a place
                self._fates.append((task, Untaken()))
                return
            seat.clear(self.clock.monotonic())
            seat.task = task
        self._wake()

    def collect(self) -> Sequence[tuple[Task, Fate]]:
        with self._changed:
            fates, self._fates = self._fates, []
        return fates

    def wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._fates or self._draining, seconds)

    def run(self) -> None:
        """Keep at it until told to drain and the last unpacker has ended."""
        while not self._draining or self._running():
            self.turn()
        self._pay_debts()

    def turn(self, *, longest: float = _TICK_SECONDS) -> None:
        """Start who is needed, wait until something happens, `longest` seconds at the most, and see to it."""
        if not self._draining:
            self._fill_seats()
        signs: list[Connection | int] = [self._bell]
        for running in self._running():
            signs += [running.connection, running.process.sentinel]
        wait(signs, min(self._tick(), longest))
        while self._bell.poll():
            self._bell.recv_bytes()
        for index, seat in enumerate(self._seats):
            if seat.running is not None:
                self._listen(seat, seat.running)
                self._kill_if_overdue(seat, seat.running)
                self._retire_if_idle(index, seat, seat.running)
                self._bury_if_dead(index, seat, seat.running)
        self._pay_debts()

    def drain(self) -> None:
        with self._changed:
            self._draining = True
            for seat in self._seats:
                if seat.running is not None:
                    seat.running.send(DRAIN)
                if seat.task is not None and not seat.is_sent:
                    self._hand_back(seat, Untaken())
            self._changed.notify_all()
        self._wake()

    def kill(self) -> None:
        """End what is still running, now. A shutdown is not an attempt."""
        self._draining = True
        for running in self._running():
            running.ended_with_us = True
            running.process.kill()

    def owners(self) -> list[str]:
        """Return the names under which leases are held, also those of the dead until that is settled."""
        with self._changed:
            return [running.owner for running in self._running()] + [debt.owner for debt in self._debts]

    def is_healthy(self) -> bool:
        """Say whether the first unpacker has been there, and no place is vacant because its process died."""
        with self._changed:
            first = self._seats[0]
            return (first.is_ready or first.number > 1) and all(
                seat.is_ready or not seat.failures for seat in self._seats
            )

    def _running(self) -> list[Running]:
        with self._changed:
            return [seat.running for seat in self._seats if seat.running is not None]

    def _is_wanted(self, index: int, seat: Seat) -> bool:
        """Say whether a seat needs a process; one that failed gets another, so that it is known to do well again."""
        return seat.running is None and (index == 0 or seat.task is not None or seat.failures > 0)

    def _fill_seats(self) -> None:
        for index, seat in enumerate(self._seats):
            if self._is_wanted(index, seat) and self.clock.monotonic() >= seat.restart_at:
                self._start(index, seat)
            with self._changed:
                if seat.running is not None and seat.task is not None and not (seat.is_sent or self._draining):
                    seat.is_sent = True
                    seat.running.send(seat.task)

    def _start(self, index: int, seat: Seat) -> None:
        seat.number += 1
        owner = f"{self.plan.owner}/u{index}.{seat.number}"
        try:
            process, connection = self.spawn(index, owner)
        except OSError as error:
            self.emit(TroubleBegan(f"unpacker {index}", describe_error(error)))
            self._postpone(seat)
            self._hand_back(seat, Untaken())
            return
        with self._changed:
            seat.running = Running(owner, process, connection)
            seat.since = self.clock.monotonic()
            if self._draining:  # it was asked for while this one was being made
                seat.running.send(DRAIN)

    def _postpone(self, seat: Seat) -> None:
        wait_seconds = calculate_backoff(seat.failures, _RESTART_BASE_SECONDS, _RESTART_MAX_SECONDS)
        seat.failures += 1
        seat.restart_at = self.clock.monotonic() + wait_seconds

    def _tick(self) -> float:
        now = self.clock.monotonic()
        waits = [_TICK_SECONDS]
        waits += [seat.timed_since + self.plan.limit_seconds - now for seat in self._seats if seat.is_timed]
        if not self._draining:
            waits += [seat.restart_at - now for index, seat in enumerate(self._seats) if self._is_wanted(index, seat)]
        return max(min(waits), 0.01)

    def _listen(self, seat: Seat, running: Running) -> None:
        try:
            while running.connection.poll():
                self._hear(seat, running, running.connection.recv())
        except (EOFError, OSError):
            return  # it is ending; its sentinel says the rest
        except Exception:  # noqa: BLE001 - what cannot be read comes from a memory that is not to be trusted
            running.process.kill()

    def _hear(self, seat: Seat, running: Running, said: object) -> None:
        if isinstance(said, Event):
            self.emit(said)
        elif said == READY:
            running.ready, running.ready_at = True, self.clock.monotonic()
            self._on_fate()
        elif isinstance(said, tuple):
            seat.step, seat.batch_id = said
            seat.step_since = self.clock.monotonic()
        else:
            seat.failures = 0
            if running.resident_bytes() > MOST_RESIDENT_BYTES:
                self._retire(running)
            self._hand_back(seat, said)  # type: ignore[arg-type] # nothing else is left that may be said

    def _kill_if_overdue(self, seat: Seat, running: Running) -> None:
        if running.killed_for_time or not running.process.is_alive() or not seat.is_timed:
            return
        if self.clock.monotonic() - seat.timed_since > self.plan.limit_seconds:
            running.killed_for_time = True
            running.process.kill()

    def _retire_if_idle(self, index: int, seat: Seat, running: Running) -> None:
        with self._changed:
            if index == 0 or seat.task is not None or running.retiring:
                return
            if self.clock.monotonic() - seat.since >= IDLE_SECONDS:
                seat.failures = 0
                self._retire(running)

    @staticmethod
    def _retire(running: Running) -> None:
        running.retiring = True
        running.send(DRAIN)

    def _bury_if_dead(self, index: int, seat: Seat, running: Running) -> None:
        if running.process.is_alive():
            return
        running.process.join()
        self._listen(seat, running)  # what it said before
        code, task = running.process.exitcode or 0, seat.task
        has_begun = task is not None and seat.step is not None
        with self._changed:
            running.connection.close()
            seat.running = None
            if code or has_begun:
                debt = _Debt(running.owner, self._end_of(running), task if has_begun else None, seat.batch_id)
                self._debts.append(debt)
        if code or has_begun:
            name = storable(task.drop.name) if has_begun and task is not None else ""
            self.emit(UnpackerDied(index, code, name, self._explain(running, code)))
        if has_begun:  # the drop is to blame: others need not wait for it
            seat.failures = 1
            seat.clear(self.clock.monotonic())
        else:
            if code:
                self._postpone(seat)
            self._hand_back(seat, Untaken())

    @staticmethod
    def _end_of(running: Running) -> End:
        if running.ended_with_us:
            return End.STOPPED
        return End.TOO_SLOW if running.killed_for_time else End.DIED

    def _explain(self, running: Running, code: int) -> str:
        if running.killed_for_time:
            return f"it did not answer, and was killed after {self.plan.limit_seconds:g} s"
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"the process ended {how}"

    def _hand_back(self, seat: Seat, fate: Fate) -> None:
        with self._changed:
            task = seat.task
            seat.clear(self.clock.monotonic())
        if task is not None:
            self._tell(task, fate)

    def _tell(self, task: Task, fate: Fate) -> None:
        with self._changed:
            self._fates.append((task, fate))
            self._changed.notify_all()
        self._on_fate()

    def _pay_debts(self) -> None:
        """Settle what the dead held, then tell of it; while the database does not answer, the debts stay."""
        for debt in list(self._debts):
            try:
                self.settle(debt.owner, debt.end)
            except WorkerError:
                return
            with self._changed:
                self._debts.remove(debt)
            if debt.task is not None:
                self._tell(debt.task, Died(debt.batch_id or None))

    def _wake(self) -> None:
        self._hammer.send_bytes(b"!")
