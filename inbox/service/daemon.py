"""The service: three legs, a heartbeat, worker processes and probes, from start to the last release."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from inbox import events
from inbox.core.errors import DatabaseUnavailableError, RetryableError
from inbox.database import leasing
from inbox.database.connection import Sessions, ping
from inbox.database.leasing import HEARTBEAT_SHARE
from inbox.events import Emit, Event
from inbox.lifecycle import BatchState
from inbox.pipeline.dispatching.supervising import Supervisor
from inbox.pipeline.extracting import require_headroom
from inbox.pipeline.instances import base_of
from inbox.pipeline.rescans import Pace
from inbox.pipeline.runner.closing import Closing, is_everything_done
from inbox.pipeline.runner.heartbeat import Heartbeat
from inbox.pipeline.runner.intake import Intake
from inbox.pipeline.runner.rescue import Rescuing
from inbox.pipeline.watching import scan
from inbox.service.health import Health
from inbox.service.legs import Leg
from inbox.service.lookout import Lookout, MakeWatch
from inbox.service.questions import Question, ailment
from inbox.service.troubles import Troubles
from inbox.utils.clock import Bell, Clock
from inbox.utils.volume import Volume

if TYPE_CHECKING:
    from sqlalchemy import Engine

_CLOSING_SECONDS: Final = 15.0
_LEAST_SECONDS: Final = 0.5
_KILL_SECONDS: Final = 2.0
"""What is left of the grace period for the end itself."""
PATIENCE_SECONDS: Final = 1.5
"""How long a probe waits for the database, and for the volume: less than the probes' own time-outs."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often things happen, and how long an end may take."""

    scan_interval: timedelta
    lease_life: timedelta
    grace: timedelta
    shortest_scan: timedelta = timedelta(seconds=5)
    """The interval that `scan_interval` comes down to while events cannot be relied on."""


@dataclass
class Tally:
    """What a run has come to so far; `run --once` exits by it."""

    failed: int = 0
    closed: int = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, events.BatchClosed):
            self.closed += 1
            self.failed += event.state != BatchState.COMPLETED
        elif isinstance(event, events.BatchRefused):
            self.failed += 1


@dataclass
class Daemon:
    """Everything that runs while the service runs. The composition root makes it."""

    intake: Intake
    closing: Closing
    rescuing: Rescuing
    supervisor: Supervisor
    make_watch: MakeWatch
    engine: "Engine"
    sessions: Sessions
    volume: Volume
    clock: Clock
    rhythm: Rhythm
    owner: str
    emit: Emit
    tally: Tally
    finished: Bell = field(default_factory=Bell)
    unannounced: str | None = None
    """Why the file system of the uploads cannot tell of every drop, if so."""
    at_start: Callable[[], None] | None = None
    """What is done once, before the first round of rescuing, and again until it succeeds."""
    _at_rest: bool = field(init=False, default=False)
    _rounds_begun: int = field(init=False, default=0)
    _rounds_ended: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        troubles = Troubles(self.clock, self.emit)

        def make(
            name: str, round_: Callable[[], None], interval: Callable[[], float], longest_wait: float = 30.0
        ) -> Leg:
            return Leg(
                name,
                round_,
                interval=interval,
                clock=self.clock,
                emit=self.emit,
                longest_wait=longest_wait,
                troubles=troubles,
            )

        self._intake = make("intake", self._take_in, self._until_next_scan)
        self._closing = make("closing", self._close, lambda: _CLOSING_SECONDS)
        self._rescuing = make("rescuing", self._rescue, lambda: self.rhythm.lease_life.total_seconds() / 4)
        beat_seconds = self.rhythm.lease_life.total_seconds() * HEARTBEAT_SHARE
        heartbeat = Heartbeat(
            sessions=self.sessions,
            clock=self.clock,
            life=self.rhythm.lease_life,
            owners=lambda: [self.owner, *self.supervisor.owners(), *self.intake.unpackers.owners()],
            observer=self.rescuing.observer,
            on_over=self._rescuing.bell.ring,
        )
        self._heartbeat = make("heartbeat", heartbeat.round, lambda: beat_seconds, longest_wait=beat_seconds / 4)
        self._workers = threading.Thread(target=self.supervisor.run, name="supervisor", daemon=True)
        self._unpackers = threading.Thread(target=self.intake.unpackers.run, name="unpackers", daemon=True)
        self._legs = (self._rescuing, self._heartbeat, self._intake, self._closing)
        self._database = Question("asking the database", lambda: ping(self.engine))
        self._folders = Question("asking the volume", self._look_at_volume)
        self._lookout = Lookout(
            self.make_watch,
            self._intake.bell,
            pace=Pace(self.rhythm.scan_interval.total_seconds(), self.rhythm.shortest_scan.total_seconds(), self.clock),
            clock=self.clock,
            emit=self.emit,
            announce=self.intake.settler.announce,
            unannounced=self.unannounced,
        )
        self.intake.on_scanned = self._lookout.found
        self.intake.should_stop = lambda: self._intake.is_stopping
        self.intake.on_registered = self.on_registered
        self.intake.unpackers.call_when_over(self._intake.bell.ring)
        self.rescuing.on_rescued = self.on_registered
        self.supervisor.on_idle = self._closing.bell.ring

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything; at the end of the block stop taking, finish or release what is held, and stop."""
        self._lookout.start()
        self._workers.start()
        self._unpackers.start()
        for leg in self._legs:
            leg.start()
        try:
            yield
        finally:
            self._stop()

    def on_registered(self) -> None:
        """New work, or a refusal to report."""
        self.supervisor.wake()
        self._closing.bell.ring()

    def wait_until_done(self, should_stop: Callable[[], bool], on_progress: Callable[[Sessions], None]) -> None:
        """
        Return when every drop is decided about and no batch is open, or when asked to stop.

        The last word is a scan that began when no batch was open any more: a drop may have been left to its batch, and
        the batch have passed to another drop of the same content.
        """
        last_round: int | None = None
        while not should_stop():
            self.finished.wait(0.2)
            with suppress(DatabaseUnavailableError):  # the legs tell of it, and go on when it is back
                on_progress(self.sessions)
                if not (self._at_rest and self.at_start is None and is_everything_done(self.sessions)):
                    last_round = None
                elif last_round is None:
                    last_round = self._rounds_begun + 1
                    self._intake.bell.ring()
                elif self._rounds_ended >= last_round:
                    return

    def holds_nothing(self) -> bool:
        """Say whether no lease of ours is left, after the end; a database that does not answer in time cannot tell."""
        question = Question("asking for leases", self._require_no_leases)
        return ailment(question.put(), PATIENCE_SECONDS) is None

    def _require_no_leases(self) -> None:
        with self.sessions.reading() as session:
            owners = leasing.lease_owners(session=session)
        if any(base_of(owner) == self.owner for owner in owners):
            raise RetryableError("leases are left")

    def incomplete_drops(self) -> dict[str, str]:
        """Return the drops that are quiet and not whole, by name, each with the reason."""
        return dict(sorted(self.intake.waiting.items()))

    def live(self) -> Health:
        """Say whether every thread that should run does; while the service stops, they end one by one."""
        running = {leg.name: leg.is_alive or leg.is_stopping for leg in self._legs}
        for thread in (self._workers, self._unpackers):
            running[thread.name] = thread.is_alive() or self._intake.is_stopping
        return Health({name: None if runs else "its thread has ended" for name, runs in running.items()})

    def ready(self) -> Health:
        """Say whether drops can be taken and worked on now."""
        checks = {leg.name: leg.trouble if leg.is_held_up else None for leg in self._legs}
        database, volume = self._database.put(), self._folders.put()
        checks["database"] = ailment(database, PATIENCE_SECONDS)
        checks["volume"] = ailment(volume, PATIENCE_SECONDS)
        checks["workers"] = None if self.supervisor.is_healthy() else "not every worker is ready"
        paused = [f"{handler} fails: {cause}" for handler, cause in self.supervisor.paused_handlers().items()]
        checks["handlers"] = "; ".join(paused) or None
        checks["unpackers"] = None if self.intake.unpackers.is_healthy() else "not every unpacker is ready"
        if any(leg.is_stopping for leg in self._legs):
            checks["service"] = "stopping"
        notes = {leg.name: leg.trouble for leg in self._legs if leg.trouble is not None and not leg.is_held_up}
        return Health(checks, self._lookout.as_json(), notes)

    def _on_volume(self, round_: Callable[[], None]) -> None:
        """Do a round on the right volume; what goes wrong in it because that is gone is the volume's trouble."""
        self.volume.require()
        try:
            round_()
        except Exception:
            self.volume.require()
            raise

    def _look_at_volume(self) -> None:
        """Raises StorageError when it is gone, or so full that nothing fits, however small."""
        scan(self.volume.uploads)
        self.volume.require()
        require_headroom(self.volume.extracted)

    def _take_in(self) -> None:
        self._rounds_begun += 1
        self._at_rest = False
        self._lookout.check()
        self._on_volume(self.intake.round)
        self._at_rest = self.intake.is_at_rest()  # here, since only this thread may look into the intake's memory
        self._rounds_ended = self._rounds_begun
        self.supervisor.wake()  # somebody else may have registered, or an operator may want a file tried again
        self.finished.ring()

    def _rescue(self) -> None:
        try:
            if self.at_start is not None:
                self.at_start()
                self.at_start = None
                self.supervisor.wake()
                self.finished.ring()
        finally:  # the dead are rescued, whatever keeps us from the other
            self._on_volume(self.rescuing.round)

    def _close(self) -> None:
        self._on_volume(self.closing.round)
        self.finished.ring()

    def _until_next_scan(self) -> float:
        interval = self._lookout.seconds_to_next_scan()
        soon = self.intake.next_look_in()
        return interval if soon is None else min(max(soon, 0.01), interval)

    def _stop(self) -> None:
        """Stop taking first, then let all processes end, and keep the heartbeat while anybody may hold a lease."""
        ends_at = self.clock.monotonic() + self.rhythm.grace.total_seconds()
        taking = (self._intake, self._rescuing)
        for leg in taking:
            leg.stop()
        crews = ((self.intake.unpackers, self._unpackers), (self.supervisor, self._workers))
        for crew, _ in crews:
            crew.drain()
        for _, thread in crews:
            thread.join(max(ends_at - _KILL_SECONDS - self.clock.monotonic(), 0.1))
        late = [(crew, thread) for crew, thread in crews if thread.is_alive()]
        for crew, _ in late:
            crew.kill()
        for _, thread in late:
            thread.join(_KILL_SECONDS)
        self._join(taking, ends_at)
        self._lookout.stop()
        closing = (self._closing, self._heartbeat)
        for leg in closing:
            leg.stop()
        self._join(closing, ends_at)

    def _join(self, legs: Iterable[Leg], ends_at: float) -> None:
        for leg in legs:
            leg.join(max(ends_at - self.clock.monotonic(), _LEAST_SECONDS))
