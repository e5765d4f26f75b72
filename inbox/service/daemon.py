"""The service: three legs, a heartbeat, worker processes and probes, from start to the last release."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from inbox import events
from inbox.core.errors import DatabaseUnavailableError
from inbox.database import leasing
from inbox.database.connection import Sessions, ping
from inbox.events import Emit, Event
from inbox.lifecycle import BatchState
from inbox.pipeline.dispatching.supervising import Supervisor
from inbox.pipeline.extracting import require_headroom
from inbox.pipeline.rescans import Pace
from inbox.pipeline.runner import Closing, Intake, Rescuing, is_everything_done
from inbox.pipeline.watching import scan
from inbox.service.health import Health
from inbox.service.legs import Leg
from inbox.service.lookout import Lookout, MakeWatch
from inbox.service.questions import Question, ailment
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
    _at_rest: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        def make(name: str, round_: Callable[[], None], interval: Callable[[], float]) -> Leg:
            return Leg(name, round_, interval=interval, clock=self.clock, emit=self.emit)

        self._intake = make("intake", self._take_in, self._until_next_scan)
        self._closing = make("closing", self._close, lambda: _CLOSING_SECONDS)
        self._rescuing = make("rescuing", self.rescuing.round, lambda: self.rhythm.lease_life.total_seconds() / 4)
        self._heartbeat = make("heartbeat", self._beat, lambda: self.rhythm.lease_life.total_seconds() / 4)
        self._workers = threading.Thread(target=self.supervisor.run, name="supervisor", daemon=True)
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
        self.rescuing.on_rescued = self.on_registered
        self.supervisor.on_idle = self._closing.bell.ring

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start everything; at the end of the block stop taking, finish or release what is held, and stop."""
        self._lookout.start()
        self._workers.start()
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
        """Return when every drop is decided about and no batch is open, or when asked to stop."""
        while not should_stop():
            self.finished.wait(0.2)
            with suppress(DatabaseUnavailableError):  # the legs tell of it, and go on when it is back
                on_progress(self.sessions)
                if self._at_rest and is_everything_done(self.sessions):
                    return

    def incomplete_drops(self) -> dict[str, str]:
        """Return the drops that are quiet and not whole, by name, each with the reason."""
        return {name: reason for name, (_, reason) in sorted(self.intake.waiting.items())}

    def live(self) -> Health:
        """Say whether every thread that should run does; while the service stops, they end one by one."""
        running = {leg.name: leg.is_alive or leg.is_stopping for leg in self._legs}
        running["supervisor"] = self._workers.is_alive() or self._intake.is_stopping
        return Health({name: None if runs else "its thread has ended" for name, runs in running.items()})

    def ready(self) -> Health:
        """Say whether drops can be taken and worked on now."""
        checks = {leg.name: leg.trouble if leg.is_held_up else None for leg in self._legs}
        database, volume = self._database.put(), self._folders.put()
        checks["database"] = ailment(database, PATIENCE_SECONDS)
        checks["volume"] = ailment(volume, PATIENCE_SECONDS)
        checks["workers"] = None if self.supervisor.is_healthy() else "not every worker is ready"
        if any(leg.is_stopping for leg in self._legs):
            checks["service"] = "stopping"
        notes = {leg.name: leg.trouble for leg in self._legs if leg.trouble is not None and not leg.is_held_up}
        return Health(checks, self._lookout.as_json(), notes)

    def _look_at_volume(self) -> None:
        """Raises StorageError when it is gone, or so full that nothing fits, however small."""
        scan(self.volume.uploads)
        require_headroom(self.volume.extracted)

    def _take_in(self) -> None:
        self._at_rest = False
        self._lookout.check()
        self.intake.round()
        self._at_rest = self.intake.is_at_rest()  # here, since only this thread may look into the intake's memory
        self.supervisor.wake()  # somebody else may have registered, or an operator may want a file tried again
        self.finished.ring()

    def _close(self) -> None:
        self.closing.round()
        self.finished.ring()

    def _until_next_scan(self) -> float:
        interval = self._lookout.seconds_to_next_scan()
        soon = self.intake.next_look_in()
        return interval if soon is None else min(max(soon, 0.01), interval)

    def _beat(self) -> None:
        owners = [self.owner, *self.supervisor.owners()]
        with self.sessions.writing() as session:
            leasing.extend_leases(owners, now=self.clock.now(), life=self.rhythm.lease_life, session=session)

    def _stop(self) -> None:
        """Stop taking first, then let the workers finish, and keep the heartbeat while anybody may hold a lease."""
        ends_at = self.clock.monotonic() + self.rhythm.grace.total_seconds()
        taking = (self._intake, self._rescuing)
        for leg in taking:
            leg.stop()
        self.supervisor.drain()
        self._workers.join(max(ends_at - _KILL_SECONDS - self.clock.monotonic(), 0.1))
        if self._workers.is_alive():
            self.supervisor.kill()
            self._workers.join(_KILL_SECONDS)
        self._join(taking, ends_at)
        self._lookout.stop()
        closing = (self._closing, self._heartbeat)
        for leg in closing:
            leg.stop()
        self._join(closing, ends_at)

    def _join(self, legs: Iterable[Leg], ends_at: float) -> None:
        for leg in legs:
            leg.join(max(ends_at - self.clock.monotonic(), _LEAST_SECONDS))
