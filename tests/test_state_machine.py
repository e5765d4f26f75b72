"""
Leases and states as a model: several workers, crashes, pauses and clock jumps against the real operations.

After every step: a file has one holder at most, nothing is lost, attempts are bounded, success is never left.
"""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from databases import LIFE, NOW, connected, fill_batch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inbox.core.errors import RetryableError
from inbox.database import leasing, work
from inbox.database.operations import get_batch_files, get_batch_statistics, mark_batch_completed
from inbox.domain import InHand, Outcome
from inbox.lifecycle import FINAL_FILE_STATES, FileState
from inbox.pipeline.rescuing import Rescuer, RetryPolicy

WORKERS = st.sampled_from(["a", "b", "c"])
MAX_ATTEMPTS = 3
FILES = 6


class Clock:
    def __init__(self):
        self.time = NOW

    def now(self):
        return self.time

    def monotonic(self):
        return self.time.timestamp()

    boottime = monotonic


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
        self.pages = {"a": [], "b": [], "c": []}
        self.succeeded = set()
        self.attempts_begun = {}

    @initialize()
    def register(self):
        self.doc_ids = fill_batch("b1", FILES, skipped=1)[:FILES]

    def teardown(self):
        self.stack.close()
        self.drop_url(self.url)

    @rule(worker=WORKERS, limit=st.integers(1, 4))
    def claim(self, worker, limit):
        with self.sessions.writing() as session:
            page = work.claim_files(worker, limit=limit, now=self.clock.now(), life=LIFE, session=session)
        if page.files:
            self.pages[worker].append((page.token, list(page.files)))
        for claimed in page.files:
            assert claimed.doc_id not in self.succeeded
            assert claimed.attempt <= MAX_ATTEMPTS

    @rule(worker=WORKERS, state=st.sampled_from([FileState.SUCCESS, FileState.FAILED, FileState.RETRYING]))
    @precondition(lambda self: any(self.pages.values()))
    def record(self, worker, state):
        """A worker, perhaps one that was paused past its lease, records what it has in hand."""
        if not self.pages[worker]:
            return
        token, files = self.pages[worker][0]
        claimed = files.pop(0)
        if state is FileState.RETRYING and claimed.attempt >= MAX_ATTEMPTS:
            state = FileState.FAILED
        now = self.clock.now()
        outcome = Outcome(
            claimed.doc_id,
            token,
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
        if not files:
            self.pages[worker].pop(0)
            with self.sessions.writing() as session:
                leasing.drop_leases([token], session=session)

    @rule(worker=WORKERS)
    def give_back(self, worker):
        """A worker that is asked to stop gives back what it has not begun."""
        if not self.pages[worker]:
            return
        token, _ = self.pages[worker].pop(0)
        with self.sessions.writing() as session:
            work.release_files(token, session=session)
            leasing.drop_leases([token], session=session)

    @rule(worker=WORKERS, knows_hand=st.booleans())
    def crash(self, worker, knows_hand):
        """A worker dies with a file in hand; a rescuer on this machine knows which, one elsewhere does not."""
        hands = [InHand(token, files[0].doc_id, 0.0) for token, files in self.pages[worker]]
        self.pages[worker] = []
        list(self.rescuer.rescue(dead_owners=[worker], what_was_in_hand=lambda _owner: hands if knows_hand else None))

    @rule()
    def rescue(self):
        """Leases that have expired are taken over; whoever held them may still believe in them."""
        list(self.rescuer.rescue(dead_owners=[], what_was_in_hand=lambda _owner: None))

    @rule(worker=WORKERS)
    def beat(self, worker):
        with self.sessions.writing() as session:
            leasing.extend_leases([worker], now=self.clock.now(), life=LIFE, session=session)

    @rule(seconds=st.sampled_from([-3600, -30, 1, 10, 61, 3600]))
    def jump(self, seconds):
        self.clock.time += timedelta(seconds=seconds)

    @invariant()
    def nothing_is_lost_and_nothing_done_twice(self):
        if not hasattr(self, "doc_ids"):
            return
        files = get_batch_files("b1")
        with self.sessions.reading() as session:
            tokens = leasing.open_tokens(session=session)
        assert FILES + 1 == len(files)
        for file in files[:FILES]:
            assert file.retry_count < MAX_ATTEMPTS
            assert (file.status == FileState.SUCCESS) == (file.doc_id in self.succeeded)
            assert (file.status in FINAL_FILE_STATES) == (file.processing_completed_at is not None)
            if file.status == FileState.PROCESSING:
                assert file.lease_token in tokens
            else:
                assert file.lease_token is None
        counts = get_batch_statistics("b1")
        assert counts["members"] == counts["files"] + counts["skipped"] == FILES + 1

    @rule()
    def everything_can_be_finished(self):
        """From wherever we are, a lone worker with patience brings every file to rest (asked at random moments)."""
        self.pages = {"a": [], "b": [], "c": []}
        for _ in range(MAX_ATTEMPTS * 2):
            self.clock.time += timedelta(days=1)
            list(self.rescuer.rescue(dead_owners=[], what_was_in_hand=lambda _owner: None))
            with self.sessions.writing() as session:
                page = work.claim_files("z", limit=50, now=self.clock.now(), life=LIFE, session=session)
                outcomes = [
                    Outcome(file.doc_id, page.token, FileState.SUCCESS, self.clock.now(), 1) for file in page.files
                ]
                self.succeeded |= work.record_outcomes(outcomes, session=session)
                leasing.drop_leases([page.token], session=session)
        assert all(file.status in FINAL_FILE_STATES for file in get_batch_files("b1"))
        mark_batch_completed("b1")


@pytest.mark.parametrize("examples", [25])
def test_no_sequence_of_crashes_breaks_a_promise(database_kind, examples, request, tmp_path):
    """
    Whatever workers, crashes, pauses and clocks do, one holder, no loss, bounded attempts, and a way to the end.
    """
    if database_kind == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        numbers = iter(range(10_000))

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

    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))


def test_error_of_a_dead_worker_is_transient():
    """
    What a dead worker's file is charged with is worth another attempt.
    """
    assert RetryPolicy(3, 2.0).due_after(0, NOW) == NOW + timedelta(seconds=2)
    assert "RETRYABLE" == RetryableError.error_type
