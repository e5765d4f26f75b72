"""
Leases and states as a model: several workers, crashes, pauses and clock jumps against the real operations.

After every step: what a worker may begin has not succeeded and is in nobody else's hands, nothing is lost, attempts are
bounded, success is never left. In the end, with everybody healthy, all of it comes to rest in a few rounds.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

from databases import LIFE, NOW, connected, fill_batch, lease_it, make_batch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from inbox.core.errors import LeaseLostError, RetryableError
from inbox.database import batches, leasing, work
from inbox.database.operations import get_batch_by_id, get_batch_files, get_batch_statistics
from inbox.domain import BatchLease, ClaimedFile, Extraction, InHand, MemberFile, Outcome
from inbox.lifecycle import FINAL_BATCH_STATES, FINAL_FILE_STATES, BatchState, FileState
from inbox.pipeline.dispatching.holding import Hold
from inbox.pipeline.observing import Observer
from inbox.pipeline.registering import Registrar
from inbox.pipeline.rescuing import Rescuer, RetryPolicy
from inbox.pipeline.summarising import Summariser

WORKERS = st.sampled_from(["a", "b", "c"])
HOSTS = st.sampled_from([0, 1])
MAX_ATTEMPTS = 3
FILES = 6
MEMBERS = tuple(MemberFile(f"{number}.txt", 1, "0" * 64, number) for number in range(2))
ROUND = LIFE.total_seconds() / 6


class Clock:
    """The wall jumps; what goes evenly goes on."""

    def __init__(self):
        self.time = NOW
        self.ticks = 0.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.ticks

    boottime = monotonic

    def go_on(self, seconds):
        self.time += timedelta(seconds=seconds)
        self.ticks += seconds


@dataclass
class InWork:
    """A page in a worker's hands: what it has not begun, and what it has."""

    hold: Hold
    token: str
    waiting: list[ClaimedFile]
    begun: ClaimedFile | None = None
    is_lost: bool = False


@dataclass
class Person:
    """What a worker believes to hold."""

    pages: list[InWork] = field(default_factory=list)
    extraction: BatchLease | None = None


class Leases(RuleBasedStateMachine):
    """What workers believe they hold, against what the database says."""

    make_url = staticmethod(lambda: "")
    drop_url = staticmethod(lambda _url: None)

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.url = self.make_url()
        self.sessions = self.stack.enter_context(connected(self.url))
        self.clock = Clock()
        self.rescuer = Rescuer(
            self.sessions, self.clock, RetryPolicy(MAX_ATTEMPTS, 1.0), batch_time=timedelta(days=365)
        )
        self.observers = [Observer(self.sessions, self.clock, life=LIFE) for _ in range(2)]
        self.registrar = Registrar(self.sessions, self.clock, extracted_folder="extracted")
        self.summariser = Summariser(self.sessions, self.clock)
        self.people = {name: Person() for name in "abc"}
        self.succeeded = set()
        self.registered = 0
        self.closed = []

    @initialize()
    def register(self):
        self.doc_ids = fill_batch("b1", FILES, skipped=1)[:FILES]
        make_batch("b2", name="other.zip")

    def teardown(self):
        try:
            if hasattr(self, "doc_ids"):
                self.drain()
        finally:
            self.stack.close()
            self.drop_url(self.url)

    @rule(worker=WORKERS, limit=st.integers(1, 4))
    def claim(self, worker, limit):
        began = self.clock.boottime()
        with self.sessions.writing() as session:
            page = work.claim_files(worker, limit=limit, now=self.clock.now(), life=LIFE, session=session)
        if page.files:
            hold = Hold(page.token, LIFE, self.sessions, self.clock, confirmed_at=began)
            self.people[worker].pages.append(InWork(hold, page.token, list(page.files)))
        for claimed in page.files:
            assert claimed.doc_id not in self.succeeded
            assert claimed.attempt <= MAX_ATTEMPTS

    @rule(worker=WORKERS)
    def begin(self, worker):
        """A worker, perhaps one that was paused past its lease, calls the handler if it may."""
        page = next((page for page in self.people[worker].pages if page.waiting and not page.begun), None)
        if page is None:
            return
        if not (page.hold.is_trusted() or page.hold.confirm()):
            self.people[worker].pages.remove(page)
            return
        page.begun = page.waiting.pop(0)
        assert page.begun.doc_id not in self.succeeded
        row = next(file for file in get_batch_files(page.begun.batch_id) if file.doc_id == page.begun.doc_id)
        assert (FileState.PROCESSING, page.token) == (row.status, row.lease_token)

    @rule(worker=WORKERS, state=st.sampled_from([FileState.SUCCESS, FileState.FAILED, FileState.RETRYING]))
    def record(self, worker, state):
        """A handler returns, however late."""
        page = next((page for page in self.people[worker].pages if page.begun), None)
        if page is None:
            return
        claimed, page.begun = page.begun, None
        if state is FileState.RETRYING and claimed.attempt >= MAX_ATTEMPTS:
            state = FileState.FAILED
        now = self.clock.now()
        outcome = Outcome(
            claimed.doc_id,
            page.token,
            state,
            now,
            1,
            error_type=None if state is FileState.SUCCESS else "RETRYABLE",
            due_at=now + timedelta(seconds=5) if state is FileState.RETRYING else None,
        )
        with self.sessions.writing() as session:
            counted = work.record_outcomes([outcome], session=session)
        if counted and state is FileState.SUCCESS:
            assert claimed.doc_id not in self.succeeded
            self.succeeded.add(claimed.doc_id)
        if not page.waiting:
            self.people[worker].pages.remove(page)
            with self.sessions.writing() as session:
                leasing.drop_leases([page.token], session=session)

    @rule(worker=WORKERS)
    def give_back(self, worker):
        """A worker that is asked to stop gives back what it has not begun."""
        page = next((page for page in self.people[worker].pages if not page.begun), None)
        if page is not None:
            self.people[worker].pages.remove(page)
            with self.sessions.writing() as session:
                leasing.drop_leases([page.token], session=session)
                work.release_files(page.token, session=session)

    @rule(worker=WORKERS, knows_hand=st.booleans())
    def crash(self, worker, knows_hand):
        """A worker dies, perhaps with a file in hand; a rescuer on this machine knows which, one elsewhere does not."""
        hands = [InHand(page.token, page.begun.doc_id, 0.0) for page in self.people[worker].pages if page.begun]
        self.people[worker] = Person()
        list(
            self.rescuer.rescue(
                over=[], dead_owners=[worker], what_was_in_hand=lambda _owner: hands if knows_hand else None
            )
        )

    @rule(host=HOSTS)
    def look(self, host):
        self.observers[host].look()

    @rule(host=HOSTS)
    def rescue(self, host):
        """What was seen to be over is taken over; whoever held it may still believe in it."""
        over = self.observers[host].over()
        list(self.rescuer.rescue(over=over, dead_owners=[], what_was_in_hand=lambda _owner: None))

    @rule(worker=WORKERS)
    def beat(self, worker):
        with self.sessions.writing() as session:
            leasing.extend_leases([worker], now=self.clock.now(), life=LIFE, session=session)

    @rule(seconds=st.sampled_from([1, ROUND, ROUND, 21, 31, 3600]), beating=st.sets(WORKERS), looking=st.booleans())
    def go_on(self, seconds, beating, looking):
        """Time goes by, in which some may be paused and others are not."""
        for _ in range(1 if seconds > 60 or not looking else 4):
            for worker in sorted(beating):
                self.beat(worker)
            if looking:
                self.look(0)
            self.clock.go_on(seconds)

    @rule()
    def be_away(self):
        """Nobody beats, somebody healthy takes everything over and does what is due, and then all wake up."""
        for _ in range(4):
            self.look(0)
            self.clock.go_on(ROUND)
        self.look(0)
        self.rescue(0)
        self.do_what_is_due()
        for worker in self.people:
            self.begin(worker)

    @rule(seconds=st.sampled_from([-18_000, -3600, -30, 61, 18_000]))
    def jump(self, seconds):
        self.clock.time += timedelta(seconds=seconds)

    @rule()
    def sweep(self):
        self.rescuer.bring_back()

    @rule(worker=WORKERS)
    def extract(self, worker):
        person = self.people[worker]
        lease = lease_it("b2", owner=worker, now=self.clock.now())
        if lease is not None:
            assert lease.attempt <= MAX_ATTEMPTS
            person.extraction = lease

    @rule(worker=WORKERS)
    def finish_extraction(self, worker):
        """Whoever unpacked the archive, however long ago it began, registers its members."""
        lease, self.people[worker].extraction = self.people[worker].extraction, None
        if lease is None:
            return
        try:
            self.registrar.register(lease, Extraction(MEMBERS, (), 0, 2))
        except LeaseLostError:
            return
        self.registered += 1

    @rule(worker=WORKERS)
    def give_extraction_back(self, worker):
        lease, self.people[worker].extraction = self.people[worker].extraction, None
        if lease is not None:
            now = self.clock.now()
            with self.sessions.writing() as session:
                batches.release_batch(lease, due_at=now, counted=False, now=now, session=session)

    @rule()
    def close(self):
        for batch_id in self.summariser.find_finished():
            if self.summariser.close(batch_id) is not None:
                self.closed.append(batch_id)

    def do_what_is_due(self):
        with self.sessions.writing() as session:
            page = work.claim_files("z", limit=50, now=self.clock.now(), life=LIFE, session=session)
            outcomes = [Outcome(file.doc_id, page.token, FileState.SUCCESS, self.clock.now(), 1) for file in page.files]
            self.succeeded |= work.record_outcomes(outcomes, session=session)
            leasing.drop_leases([page.token], session=session)

    @invariant()
    def nothing_is_lost_and_nothing_done_twice(self):
        if not hasattr(self, "doc_ids"):
            return
        files = [*get_batch_files("b1"), *get_batch_files("b2")]
        with self.sessions.reading() as session:
            tokens = leasing.open_tokens(session=session)
        assert FILES + 1 + len(MEMBERS) * self.registered == len(files)
        assert self.registered <= 1
        for file in files:
            assert file.retry_count < MAX_ATTEMPTS
            assert (file.status == FileState.SUCCESS) == (file.doc_id in self.succeeded)
            assert (file.status in FINAL_FILE_STATES) == (file.processing_completed_at is not None)
            if file.status == FileState.PROCESSING:
                assert file.lease_token in tokens
            else:
                assert file.lease_token is None
        job = get_batch_by_id("b2")
        assert (job.status == BatchState.EXTRACTING) == (job.lease_token is not None)
        assert job.lease_token is None or job.lease_token in tokens
        assert len(self.closed) == len(set(self.closed))
        counts = get_batch_statistics("b1")
        assert counts["members"] == counts["files"] + counts["skipped"] == FILES + 1

    def drain(self):
        """Whoever held something has gone; one healthy service brings all of it to rest."""
        for _ in range(4 * MAX_ATTEMPTS):
            for _ in range(5):
                self.observers[0].look()
                self.clock.go_on(ROUND)
            self.rescue(0)
            self.sweep()
            self.extract("a")
            self.finish_extraction("a")
            self.do_what_is_due()
            self.nothing_is_lost_and_nothing_done_twice()
        self.close()
        assert all(file.status in FINAL_FILE_STATES for file in [*get_batch_files("b1"), *get_batch_files("b2")])
        assert {get_batch_by_id(batch_id).status for batch_id in ("b1", "b2")} <= FINAL_BATCH_STATES
        with self.sessions.reading() as session:
            assert set() == leasing.open_tokens(session=session)


def test_no_sequence_of_crashes_breaks_a_promise(database_kind, request, tmp_path):
    """
    Whatever workers, crashes, pauses and clocks do, one holder, no loss, bounded attempts, and a way to the end.
    """
    examples = settings.default.max_examples // 8  # each is a database and some hundred transactions
    if database_kind == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        numbers = count()

        def make_url():
            path = tmp_path / f"{next(numbers)}.db"
            path.write_bytes(template.read_bytes())
            return f"sqlite:///{path}"

        machine = type("OnSqlite", (Leases,), {"make_url": staticmethod(make_url)})
    else:
        server = request.getfixturevalue("postgres_server")
        template = request.getfixturevalue("postgres_template")
        machine = type(
            "OnPostgresql",
            (Leases,),
            {
                "make_url": staticmethod(lambda: server.create_database(template=template)),
                "drop_url": staticmethod(server.drop_database),
            },
        )

    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None))


def test_error_of_a_dead_worker_is_transient():
    """
    What a dead worker's file is charged with is worth another attempt.
    """
    assert RetryPolicy(3, 2.0).due_after(0, NOW) == NOW + timedelta(seconds=2)
    assert "RETRYABLE" == RetryableError.error_type
