"""Dispatching in one process: an attempt becomes an outcome, outcomes become groups, a worker works its pages off."""

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from databases import LIFE, fill_batch
from pipeline_parts import Clock

from inbox.core.errors import DatabaseUnavailableError, ParseError, RateLimitError, RetryableError
from inbox.database import work
from inbox.database.leasing import open_tokens
from inbox.database.operations import get_batch_files
from inbox.domain import ClaimedFile
from inbox.events import AttemptFailed, AttemptSkipped, AttemptSucceeded, AttemptToRepeat, FilesReleased, OutcomeLost
from inbox.handlers.base import File, HandlerSpec, Skip
from inbox.handlers.registry import Registry
from inbox.lifecycle import FileState
from inbox.pipeline.dispatching import recording
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.recording import Recorder
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import IDLE, PROGRESS, READY, TROUBLE, Worker, WorkerPlan

CLAIMED = ClaimedFile("d1", "b1", "r1", "extracted/b1/a.txt", "a.txt", "a.txt", "text", 1, "0" * 64, 1, "t1")
FILE = File(Path("/x"), "a.txt", "a.txt", "text", 1, "0" * 64, "d1", "b1", "r1", 1)


def attempt(function, claimed=CLAIMED):
    registry = Registry((HandlerSpec("test", function),))
    return Attempting(registry, Clock(), max_attempts=3, base_delay_seconds=2.0).attempt(claimed, FILE)


def raising(error):
    def handler(_file):
        raise error

    return handler


@pytest.mark.parametrize(
    ("function", "state", "result", "reason"),
    [
        (lambda _: {"a": (1, 2)}, FileState.SUCCESS, {"a": [1, 2]}, None),
        (lambda _: None, FileState.SUCCESS, None, None),
        (lambda _: Skip("NOTHING", {"a": 1}), FileState.SKIPPED, {"a": 1}, "NOTHING"),
    ],
)
def test_what_a_handler_returns_is_the_result(function, state, result, reason):
    """
    A return is a success with its result as JSON can hold it, a Skip is skipped with its reason.
    """
    outcome = attempt(function)

    assert (state, result, reason, "t1") == (outcome.state, outcome.result, outcome.skip_reason, outcome.token)


@pytest.mark.parametrize(
    ("error", "number", "state", "word"),
    [
        (RetryableError("later"), 1, FileState.RETRYING, "RETRYABLE"),
        (ConnectionResetError(), 2, FileState.RETRYING, "RETRYABLE"),
        (RetryableError("later"), 3, FileState.FAILED, "RETRYABLE"),
        (ParseError("broken"), 1, FileState.FAILED, "PARSE_ERROR"),
        (ZeroDivisionError("a bug"), 1, FileState.FAILED, "UNKNOWN"),
        (SystemExit(3), 1, FileState.FAILED, "UNKNOWN"),
        (KeyboardInterrupt(), 1, FileState.FAILED, "UNKNOWN"),
    ],
)
def test_whatever_a_handler_raises_becomes_an_outcome(error, number, state, word):
    """
    Transient errors wait for another attempt while there is one, everything else is final; nothing gets through.
    """
    outcome = attempt(raising(error), replace(CLAIMED, attempt=number))

    assert (state, word) == (outcome.state, outcome.error_type)
    assert (outcome.due_at is not None) == (state is FileState.RETRYING)


def test_wait_is_the_schedules_or_the_servers():
    """
    The next attempt is due after the schedule's wait, or when the server said.
    """
    first = attempt(raising(RetryableError("later")))
    asked = attempt(raising(RateLimitError("slow", retry_after=90)))

    assert timedelta(seconds=2) == first.due_at - first.finished_at
    assert timedelta(seconds=90) == asked.due_at - asked.finished_at


def test_result_that_is_no_json_is_the_handlers_fault():
    """
    A result that JSON cannot express fails the file for good and names the place.
    """
    outcome = attempt(lambda _: {"image": b"x"})

    assert (FileState.FAILED, "PERMANENT") == (outcome.state, outcome.error_type)
    assert "$.image" in outcome.error_message


@pytest.fixture
def claimed(house):
    """Six files of one page, claimed."""
    fill_batch("b1", 6, now=house.clock.now())
    with house.sessions.writing() as session:
        return work.claim_files("me", limit=6, now=house.clock.now(), life=LIFE, session=session)


@pytest.fixture
def recorder(house):
    made = Recorder(house.sessions, house.events.append)
    yield made
    made.close()


def test_outcomes_count_when_flushed(house, claimed, recorder):
    """
    After a flush every outcome is in the database and announced.
    """
    for file in claimed.files[:3]:
        recorder.add(file, house._outcome(file, {"failing": {"folder/1.txt"}}))
    recorder.flush()

    assert ["success", "failed", "success"] == [file.status for file in get_batch_files("b1")[:3]]
    assert (2, 1) == (len(house.heard(AttemptSucceeded)), len(house.heard(AttemptFailed)))


def test_group_is_written_when_it_is_full(house, claimed, recorder, monkeypatch):
    """
    A full group is written by whoever completes it, without anybody asking.
    """
    monkeypatch.setattr(recording, "GROUP_SIZE", 2)
    monkeypatch.setattr(recording, "GROUP_SECONDS", 3600)
    for file in claimed.files[:5]:
        recorder.add(file, house._outcome(file, {}))

    assert 4 <= len(house.heard(AttemptSucceeded))


def test_group_is_written_by_time(house, claimed):
    """
    Outcomes do not wait for a slow file: after a tenth of a second they are known.
    """
    written = threading.Event()
    recorder = Recorder(house.sessions, lambda _event: written.set())
    recorder.add(claimed.files[0], house._outcome(claimed.files[0], {}))

    assert written.wait(30)
    recorder.close()


def test_lost_lease_is_told(house, claimed, recorder):
    """
    An outcome that comes after its lease was taken over is announced as lost.
    """
    with house.sessions.writing() as session:
        work.release_files(claimed.token, session=session)
    recorder.add(claimed.files[0], house._outcome(claimed.files[0], {}))
    recorder.flush()

    assert 1 == len(house.heard(OutcomeLost))


def test_outcomes_survive_an_outage(house, claimed, monkeypatch):
    """
    While the database does not answer outcomes wait, the trouble is told, and then they are recorded.
    """
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    told, failures = [], [1, 1, 1]
    record = work.record_outcomes

    def fail_thrice(outcomes, *, session):
        if failures:
            failures.pop()
            raise DatabaseUnavailableError("gone")
        return record(outcomes, session=session)

    monkeypatch.setattr(work, "record_outcomes", fail_thrice)
    recorder = Recorder(house.sessions, house.events.append, on_trouble=lambda: told.append(1))
    recorder.add(claimed.files[0], house._outcome(claimed.files[0], {}))
    recorder.close()

    assert (3, 1) == (len(told), len(house.heard(AttemptSucceeded)))


class FakeLink:
    """The supervisor's end, played by the test: what the worker says, and when it is to drain."""

    def __init__(self, drain_after=None):
        self.said = []
        self.draining = False
        self.waits = []
        self.drain_after = drain_after

    def say(self, word):
        self.said.append(word)

    def wait(self, seconds):
        self.waits.append(seconds)
        self.draining = True


def make_worker(house, tmp_path, function, link):
    return Worker(
        WorkerPlan(slot=0, owner="me/w0.1", lease_life=LIFE, poll_interval=timedelta(seconds=30)),
        sessions=house.sessions,
        slots=Slots(tmp_path / "slots", count=1),
        link=link,
        attempting=Attempting(Registry((HandlerSpec("test", function),)), house.clock, 3, 2.0),
        prepare=lambda claimed: replace(FILE, doc_id=claimed.doc_id, member_path=claimed.member_path),
        clock=house.clock,
        emit=house.events.append,
    )


def test_worker_works_everything_off(house, tmp_path):
    """
    A worker claims page after page until nothing is due, records all of it, and holds no lease at its end.
    """
    fill_batch("b1", 40, now=house.clock.now())
    seen, link = [], FakeLink()
    make_worker(house, tmp_path, lambda file: seen.append(file.doc_id), link).run()
    with house.sessions.reading() as session:
        assert set() == open_tokens(session=session)

    assert sorted(seen) == sorted(file.doc_id for file in get_batch_files("b1"))
    assert {"success"} == {file.status for file in get_batch_files("b1")}
    assert (READY, IDLE) == (link.said[0], link.said[-1])
    assert PROGRESS in link.said
    assert [30] == link.waits


def test_idle_worker_waits_for_what_is_due_next(house, tmp_path):
    """
    A worker with nothing to do wakes when the next repetition is due.
    """
    fill_batch("b1", 1, now=house.clock.now())
    link = FakeLink()
    make_worker(house, tmp_path, raising(RetryableError("later")), link).run()

    assert [2.0] == link.waits
    assert 1 == len(house.heard(AttemptToRepeat))


def test_draining_worker_gives_back_what_it_has_not_begun(house, tmp_path):
    """
    Told to drain, a worker finishes the file in hand and gives the rest of its page back uncounted.
    """
    fill_batch("b1", 30, now=house.clock.now())
    link, seen = FakeLink(), []

    def handler(file):
        seen.append(file.doc_id)
        link.draining = len(seen) == 8

    make_worker(house, tmp_path, handler, link).run()
    files = get_batch_files("b1")

    assert (8, 22) == tuple([file.status for file in files].count(state) for state in ("success", "pending"))
    assert {0} == {file.retry_count for file in files}
    assert house.heard(FilesReleased)


def test_worker_notes_what_it_has_in_hand(house, tmp_path):
    """
    While a handler runs its file is in the slot, and afterwards nothing is.
    """
    fill_batch("b1", 1, now=house.clock.now())
    noted = []

    def handler(file):
        noted.append(Slots(tmp_path / "slots").read(0).doc_id == file.doc_id)
        return Skip("ENOUGH")

    make_worker(house, tmp_path, handler, FakeLink()).run()

    assert [True] == noted
    assert Slots(tmp_path / "slots").read(0) is None
    assert ["ENOUGH"] == [event.reason_code for event in house.heard(AttemptSkipped)]


def test_worker_waits_for_the_database(house, tmp_path, monkeypatch):
    """
    A worker whose claim finds no database says so and tries again.
    """
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    fill_batch("b1", 1, now=house.clock.now())
    failures, claim = [1, 1], work.claim_files

    def fail_twice(*arguments, **options):
        if failures:
            failures.pop()
            raise DatabaseUnavailableError("gone")
        return claim(*arguments, **options)

    monkeypatch.setattr(work, "claim_files", fail_twice)
    link = FakeLink()
    make_worker(house, tmp_path, lambda _: None, link).run()

    assert [TROUBLE, TROUBLE] == link.said[1:3]
    assert ["success"] == [file.status for file in get_batch_files("b1")]
