"""
The supervisor of the worker processes: starts them, wakes them, kills at the deadline, and answers for the dead.

A file whose worker died or was killed is charged the attempt, alone; the rest of the page goes back uncounted.
"""

import math
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, Protocol

from inbox.core.errors import RetryableError, TimeoutError, WorkerError, describe_error  # noqa: A004 - ours
from inbox.core.retry import calculate_backoff
from inbox.domain import InHand
from inbox.events import Emit, TroubleBegan, WorkerDied
from inbox.pipeline.dispatching.link import DRAIN, IDLE, ORPHANED, PROGRESS, TROUBLE, WAKE
from inbox.pipeline.dispatching.reports import Pauses, is_report, recovered_handler
from inbox.pipeline.dispatching.slots import Slots
from inbox.utils.clock import Clock

_TICK_SECONDS: Final = 1.0
_LONGEST_WORD_BYTES: Final = 16 * 1024**2
"""More is not waited for: bytes that a handler has written pass for the length of a word."""
_RESTART_BASE_SECONDS: Final = 0.5
_RESTART_MAX_SECONDS: Final = 30.0


class Spawn(Protocol):
    """Starts a worker process for a slot, under an owner's name of its own. Raises OSError when there is no room."""

    def __call__(self, slot: int, owner: str) -> tuple[BaseProcess, Connection]: ...


class Settle(Protocol):
    """Decides about everything a dead worker held: `in_hand` is charged with `error`, the rest given back."""

    def __call__(self, owner: str, *, in_hand: Sequence[InHand], error: WorkerError) -> None: ...


@dataclass(slots=True)
class _Running:
    slot: int
    owner: str
    process: BaseProcess
    connection: Connection
    ready: bool = False
    idle: bool = False
    troubled: bool = False
    woken_for: int = 0
    """The latest wake-up that it was told of."""
    heard_at: float = 0.0
    """When there was a word of it, or its handler had a file, or it was known to wait for our word."""
    killed_for: InHand | None = None
    ended_with_us: bool = False


@dataclass(slots=True)
class _Debt:
    owner: str
    in_hand: tuple[InHand, ...]
    error: WorkerError


@dataclass(slots=True)
class _Seat:
    failures: int = 0
    restart_at: float = 0.0
    running: _Running | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Supervision:
    """The plain values of a supervisor."""

    workers: int
    owner: str
    attempt_timeout: timedelta
    silence: timedelta = timedelta(seconds=60)
    """How long a worker may give no sign of life until no heart beats for it any more."""


@dataclass
class Supervisor:
    """Runs in a thread of its own; `wake`, `drain` and the questions may be asked from any other."""

    plan: Supervision
    spawn: Spawn
    settle: Settle
    slots: Slots
    clock: Clock
    emit: Emit
    on_idle: Callable[[], None] = field(default=lambda: None)
    _seats: list[_Seat] = field(init=False)
    _debts: list[_Debt] = field(init=False, default_factory=list)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)
    _draining: bool = field(init=False, default=False)
    _wakes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._pauses = Pauses(self.clock, self.emit)
        self._seats = [_Seat() for _ in range(self.plan.workers)]

    def run(self) -> None:
        """Keep every seat taken until told to drain and the last worker has ended."""
        while not self._draining or self._running():
            self.turn()
        self._pay_debts()

    def turn(self, *, longest: float = _TICK_SECONDS) -> None:
        """Fill the seats, wait until something happens, `longest` seconds at the most, and see to it."""
        if not self._draining:
            self._fill_seats()
        running = self._running()
        signs = [item.connection for item in running] + [item.process.sentinel for item in running]
        wait(signs, min(self._tick(), longest))
        for item in running:
            self._listen(item)
            if item.idle or self._has_a_limit(item):
                item.heard_at = self.clock.monotonic()
            self._kill_if_overdue(item)
            self._bury_if_dead(item)
        self._pay_debts()

    def wake(self) -> None:
        """
        Tell idle workers that there may be something to do.

        One that is not known to be idle hears of it when it says so: it may have looked in vain just before, its word
        still on the way. Never more words than it answers, since one that does not listen would fill the connection.
        """
        with self._lock:
            self._wakes += 1
            for item in self._running():
                self._wake_if_idle(item)

    def drain(self) -> None:
        """Tell all workers to finish what they have in hand, give back the rest, and end."""
        with self._lock:
            self._draining = True
            for item in self._running():
                _send(item, DRAIN)

    def kill(self) -> None:
        """End what is still running, now. Nothing is charged: a shutdown is not an attempt."""
        self._draining = True
        for item in self._running():
            item.ended_with_us = True
            item.process.kill()

    def owners(self) -> list[str]:
        """
        Return the names under which living workers hold leases.

        One that was stopped between two files has no deadline: without a sign of life for `silence` it is left out,
        and others take its page over.
        """
        since = self.clock.monotonic() - self.plan.silence.total_seconds()
        return [item.owner for item in self._running() if item.heard_at >= since]

    def is_healthy(self) -> bool:
        """Say whether every seat has a worker that is ready and not waiting for the database."""
        return all(
            seat.running is not None and seat.running.ready and not seat.running.troubled for seat in self._seats
        )

    def paused_handlers(self) -> dict[str, str]:
        """Return the handlers whose files some worker lets wait, by name, each with the cause."""
        return self._pauses.reasons()

    def _running(self) -> list[_Running]:
        with self._lock:
            return [seat.running for seat in self._seats if seat.running is not None]

    def _fill_seats(self) -> None:
        for slot, seat in enumerate(self._seats):
            if seat.running is not None or self.clock.monotonic() < seat.restart_at:
                continue
            seat.number += 1
            owner = f"{self.plan.owner}/w{slot}.{seat.number}"
            self.slots.put_down(slot)
            try:
                process, connection = self.spawn(slot, owner)
            except OSError as error:
                self.emit(TroubleBegan(f"worker {slot}", describe_error(error)))
                self._postpone(seat)
                continue
            with self._lock:
                seat.running = _Running(slot, owner, process, connection, heard_at=self.clock.monotonic())
                if self._draining:  # it was asked for while this one was being made
                    _send(seat.running, DRAIN)

    def _wake_if_idle(self, item: _Running) -> None:
        if item.idle and item.woken_for != self._wakes:
            item.idle, item.woken_for = False, self._wakes
            _send(item, WAKE)

    def _postpone(self, seat: _Seat) -> None:
        wait_seconds = calculate_backoff(seat.failures, _RESTART_BASE_SECONDS, _RESTART_MAX_SECONDS)
        seat.failures += 1
        seat.restart_at = self.clock.monotonic() + wait_seconds

    def _tick(self) -> float:
        waits = [_TICK_SECONDS]
        limit = self.plan.attempt_timeout.total_seconds()
        now = self.clock.monotonic()
        waits += [hand.started_monotonic + limit - now for hand in self.slots.read_all()]
        waits += [seat.restart_at - now for seat in self._seats if seat.running is None and not self._draining]
        return max(min(waits), 0.01)

    def _listen(self, item: _Running) -> None:
        try:
            while item.connection.poll():
                self._hear(item, item.connection.recv_bytes(_LONGEST_WORD_BYTES))
        except (EOFError, ConnectionError):
            return  # it is ending; its sentinel says the rest
        except Exception:  # noqa: BLE001 - what cannot be read was written by its handler, which has a file in hand
            item.process.kill()

    def _hear(self, item: _Running, word: bytes) -> None:
        if is_report(word):
            self._pauses.hear(item.owner, word)
            self._pass_on(item, word)
            return
        with self._lock:
            item.ready, item.heard_at = True, self.clock.monotonic()
            item.idle = word == IDLE
            item.troubled = word == TROUBLE
            self._wake_if_idle(item)
        if word in {IDLE, PROGRESS}:
            self._seats[item.slot].failures = 0
        if word != TROUBLE:
            self.on_idle()

    def _pass_on(self, teller: _Running, report: bytes) -> None:
        if recovered_handler(report) is not None:
            for item in self._running():
                if item is not teller and item.ready:
                    _send(item, report)

    def _has_a_limit(self, item: _Running) -> bool:
        """Say whether its handler has a file; one that waits to be recorded may do so for as long as it is stopped."""
        hand = self.slots.read(item.slot)
        return hand is not None and hand.started_monotonic < math.inf

    def _kill_if_overdue(self, item: _Running) -> None:
        hand = self.slots.read(item.slot)
        if hand is None or item.killed_for is not None or not item.process.is_alive():
            return
        if self.clock.monotonic() - hand.started_monotonic <= self.plan.attempt_timeout.total_seconds():
            return
        if self.slots.read(item.slot) != hand:  # it finished, or was being written, while we looked
            return
        item.killed_for = hand
        item.process.kill()

    def _bury_if_dead(self, item: _Running) -> None:
        if item.process.is_alive():
            return
        item.process.join()
        if item.process.exitcode != 0:
            item.process.kill()  # what its handlers have started ends with it
        self._pauses.forget(item.owner)
        hand = self.slots.read(item.slot)
        self.slots.put_down(item.slot)
        seat = self._seats[item.slot]
        with self._lock:
            item.connection.close()
            seat.running = None
        code = item.process.exitcode or 0
        if code != 0 or hand is not None:
            reason, error = self._explain(item, code)
            in_hand = (hand,) if hand is not None and self._is_guilty(item, hand) else ()
            self._debts.append(_Debt(item.owner, in_hand, error))
            self.emit(WorkerDied(item.slot, code, hand.doc_id if hand else "", reason))
        if hand is None and (not item.ready or code != 0):
            self._postpone(seat)

    @staticmethod
    def _is_guilty(item: _Running, hand: InHand) -> bool:
        """Say whether the process ended because of this file: not with the service, nor for the file before it."""
        if item.killed_for is not None:
            return (item.killed_for.token, item.killed_for.doc_id) == (hand.token, hand.doc_id)
        return not item.ended_with_us

    def _explain(self, item: _Running, code: int) -> tuple[str, WorkerError]:
        if item.killed_for is not None:
            limit = self.plan.attempt_timeout.total_seconds()
            text = f"the handler was killed after {limit:g} s"
            return text, TimeoutError(text, hint="raise FILE_PROCESSING_TIMEOUT if it needs longer")
        if code == ORPHANED:
            text = "the handler closed the worker process's connection to the service"
            return text, RetryableError(text, reason_code="WORKER_DIED")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        text = f"the worker process ended {how}"
        return text, RetryableError(f"{text} while it had this file", reason_code="WORKER_DIED")

    def _pay_debts(self) -> None:
        """Settle what the dead held; while the database does not answer or refuses, the debts stay."""
        for debt in list(self._debts):
            try:
                self.settle(debt.owner, in_hand=debt.in_hand, error=debt.error)
            except WorkerError:
                return
            self._debts.remove(debt)


def _send(item: _Running, word: bytes) -> None:
    try:
        item.connection.send_bytes(word)
    except (OSError, ValueError):
        return  # it has ended, or is being buried
