"""The stages put together for a test: a volume, a database, a clock that only the test moves, and every event heard."""

import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from zips import archive

from inbox.archives import Limits, Passwords, Terms
from inbox.database import work
from inbox.database.connection import Sessions
from inbox.domain import Outcome, Owner
from inbox.events import Event
from inbox.lifecycle import FileState
from inbox.pipeline.claiming import Claimer, LockedOut
from inbox.pipeline.instances import Instance, this_owner
from inbox.pipeline.observing import Observer
from inbox.pipeline.registering import Registrar
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.rescuing import Rescuer, RetryPolicy
from inbox.pipeline.retrying import Retrier
from inbox.pipeline.runner.closing import Closing
from inbox.pipeline.runner.intake import Intake
from inbox.pipeline.runner.rescue import Rescuing
from inbox.pipeline.runner.taking import Taker
from inbox.pipeline.runner.timing import Timing
from inbox.pipeline.runner.unpacking import Unpacker
from inbox.pipeline.settling import Settler
from inbox.pipeline.summarising import Summariser
from inbox.utils.volume import Volume

QUIET = timedelta(seconds=2)
LIFE = timedelta(seconds=60)


class Clock:
    """Time that moves only when the test says so. It begins now, since files carry the machine's times."""

    def __init__(self):
        self.time = datetime.now(UTC)
        self.ticks = 1000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.ticks

    def boottime(self):
        return self.ticks

    def go_on(self, seconds):
        self.time += timedelta(seconds=seconds)
        self.ticks += seconds


class CallingThread:
    """Plays the unpackers: takes each drop at once, in the thread that hands it over. Its loop ends when told to."""

    def __init__(self, take):
        self._take = take
        self._fates = []
        self._over = threading.Event()

    def call_when_over(self, on_fate):
        pass

    def has_place(self, drop):
        return True

    def hand_over(self, task):
        self._fates.append((task, self._take(task)))

    def collect(self):
        fates, self._fates = self._fates, []
        return fates

    def wait(self, seconds):
        pass

    def run(self):
        self._over.wait(30)

    def drain(self):
        self._over.set()

    def kill(self):
        self._over.set()

    def owners(self):
        return []

    def is_healthy(self):
        return True


@dataclass
class House:
    """One service without its threads."""

    sessions: Sessions
    volume: Volume
    clock: Clock
    owner: str = "host/boot/1/nonce"
    after_success: str = "move"
    limits: Limits = field(default_factory=Limits)
    passwords: Passwords = field(default_factory=Passwords)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self):
        self.volume.make()
        timing = Timing(LIFE, timedelta(seconds=10), timedelta(seconds=1800), timedelta(days=1))
        self.reporter = Reporter(self.sessions, self.volume, self.clock, after_success=self.after_success)
        self.settler = Settler(QUIET, self.clock, trust_age=False)
        self.claimer = Claimer(self.sessions, self.clock, owner=self.owner, life=LIFE)
        self.registrar = Registrar(self.sessions, self.clock, extracted_folder=self.volume.extracted.name)
        self.unpacker = Unpacker(
            volume=self.volume,
            sessions=self.sessions,
            clock=self.clock,
            registrar=self.registrar,
            terms=Terms(self.limits, self.passwords),
            timing=timing,
            emit=self.events.append,
        )
        self.taker = Taker(
            volume=self.volume,
            claimer=self.claimer,
            unpacker=self.unpacker,
            reporter=self.reporter,
            emit=self.events.append,
            should_stop=self._should_stop,
        )
        self.unpackers = CallingThread(self.taker.take)
        self.intake = Intake(
            volume=self.volume,
            sessions=self.sessions,
            clock=self.clock,
            settler=self.settler,
            unpackers=self.unpackers,
            reporter=self.reporter,
            timing=timing,
            emit=self.events.append,
        )
        self.closing = Closing(
            self.volume,
            Summariser(self.sessions, self.clock),
            self.reporter,
            self.events.append,
            LockedOut(self.clock, patience=LIFE),
        )
        self.instance = Instance(self.volume.instances, this_owner(), workers=2)
        self.rescuer = Rescuer(self.sessions, self.clock, RetryPolicy(3, 2.0), batch_time=timing.batch_time)
        self.observer = Observer(self.sessions, self.clock, life=LIFE)
        self.rescuing = Rescuing(
            volume=self.volume,
            sessions=self.sessions,
            clock=self.clock,
            rescuer=self.rescuer,
            instance=self.instance,
            observer=self.observer,
            timing=timing,
            emit=self.events.append,
        )
        self.retrier = Retrier(self.sessions, self.volume, self.clock)

    def _should_stop(self):
        return self.intake.should_stop()

    def drop(self, name="drop.zip", data=None, members=("a.txt", "docs/b.txt")) -> Path:
        path = self.volume.uploads / name
        path.write_bytes(archive(members) if data is None else data)
        return path

    def take(self, *, settle=True) -> None:
        """Let the drops settle, and do one round of the intake."""
        self.intake.round()
        if settle:
            self.clock.go_on(QUIET.total_seconds())
            self.intake.round()

    def wait_for_beats(self) -> None:
        """Look at all leases until those that nobody extends meanwhile are over."""
        for _ in range(4):
            self.observer.look()
            self.clock.go_on(LIFE.total_seconds() / 6)
        self.observer.look()

    def watch_batches(self, seconds) -> None:
        """Let so much time go by under the eyes of the rescuer."""
        for _ in range(round(seconds / 300)):
            self.rescuing.round()
            self.clock.go_on(300)
        self.rescuing.round()

    def work(self, **outcomes) -> None:
        """Do what workers would: bring every due file to rest, as success or as the test says by member path."""
        with self.sessions.writing() as session:
            page = work.claim_files("worker", limit=1000, now=self.clock.now(), life=LIFE, session=session)
        with self.sessions.writing() as session:
            work.record_outcomes([self._outcome(file, outcomes) for file in page.files], session=session)

    def _outcome(self, file, outcomes):
        failing = outcomes.get("failing", ())
        failed = file.member_path in failing
        return Outcome(
            file.doc_id,
            file.token,
            FileState.FAILED if failed else FileState.SUCCESS,
            self.clock.now(),
            7,
            error_type="PARSE_ERROR" if failed else None,
            error_message="broken" if failed else None,
        )

    def heard(self, kind) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def uploads(self) -> list[str]:
        return sorted(os.listdir(self.volume.uploads))


def owner(pid=1, boot="boot", nonce="n"):
    return Owner("host", boot, pid, nonce)
