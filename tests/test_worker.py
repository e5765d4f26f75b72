"""A worker in this process: it works its pages off, waits for what is due or the database, gives back the rest."""

import errno
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from databases import LIFE, fill_batch

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError, RetryableError, StorageError
from inbox.database import leasing, work
from inbox.database.leasing import open_tokens
from inbox.database.operations import get_batch_files
from inbox.events import AttemptSkipped, AttemptToRepeat, FilesReleased
from inbox.handlers.base import File, HandlerSpec, Skip
from inbox.handlers.registry import Registry
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.link import IDLE, PROGRESS, READY, TROUBLE
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import Worker, WorkerPlan

FILE = File(Path("/x"), "a.txt", "a.txt", "text", 1, "0" * 64, "d1", "b1", "r1", 1)


class FakeLink:
    """The supervisor's end, played by the test: what the worker says, and when it is to drain."""

    def __init__(self):
        self.said = []
        self.draining = False
        self.waits = []
        self.drains_at = IDLE

    def say(self, word):
        self.said.append(word)

    def require_whole(self):
        pass

    def wait(self, seconds):
        self.waits.append(seconds)
        self.draining = self.said[-1] == self.drains_at


def not_yet(_file):
    raise RetryableError("later")


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
    make_worker(house, tmp_path, not_yet, link).run()

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


def test_file_pays_until_its_outcome_is_recorded(house, tmp_path, monkeypatch):
    """
    While an outcome is being written its file is still in the slot, so that what its handler did to the process falls
    on it; when it is the database that refuses, no file pays.
    """
    fill_batch("b1", 1, now=house.clock.now())
    called, noted = [], []

    def refuse(_outcomes, *, session):
        if called:  # a worker of another test may still be writing
            noted.append(Slots(tmp_path / "slots").read(0))
        raise DatabaseRefusedError("disk full")

    monkeypatch.setattr(work, "record_outcomes", refuse)
    with pytest.raises(DatabaseRefusedError):
        make_worker(house, tmp_path, lambda _: called.append(1), FakeLink()).run()

    assert math.inf == noted[0].started_monotonic  # what is written by time may try once more, later
    assert Slots(tmp_path / "slots").read(0) is None


def test_file_of_an_excused_attempt_is_not_in_hand(house, tmp_path, monkeypatch):
    """
    While the outcomes before an attempt that does not count are being written, its file is in nobody's hand: no time
    limit ends the worker for it.
    """
    fill_batch("b1", 2, now=house.clock.now())
    noted, calls, write = [], [], work.record_outcomes

    def handler(_file):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")

    def record(outcomes, *, session):
        noted.append(Slots(tmp_path / "slots").read(0))
        return write(outcomes, session=session)

    worker = make_worker(house, tmp_path, handler, FakeLink())
    worker._attempting = replace(worker._attempting, excuse=lambda _error: StorageError("the volume is not there"))
    worker._page_size = 2
    monkeypatch.setattr(work, "record_outcomes", record)
    worker.run()

    assert noted[0] is None
    assert ["success"] * 2 == [file.status for file in get_batch_files("b1")]
    assert [0, 0] == [file.retry_count for file in get_batch_files("b1")]


@pytest.fixture
def outage(monkeypatch):
    """A database that does not confirm the next claims: `outage.append(when)`, before or after they have happened."""
    claims, claim = [], work.claim_files

    def claim_files(*arguments, session, **options):
        when = claims.pop(0) if claims else None
        if when == "before":
            raise DatabaseUnavailableError("gone")
        page = claim(*arguments, session=session, **options)
        if when == "after":
            session.commit()
            raise DatabaseUnavailableError("the connection broke")
        return page

    monkeypatch.setattr(work, "claim_files", claim_files)
    return claims


def test_worker_waits_for_the_database(house, tmp_path, outage):
    """
    A worker whose claim finds no database says so, tries again with backoff, and says when it goes on.
    """
    fill_batch("b1", 1, now=house.clock.now())
    outage += ["before", "before"]
    link = FakeLink()
    make_worker(house, tmp_path, lambda _: None, link).run()

    assert [READY, TROUBLE, TROUBLE, PROGRESS] == link.said[:4]
    assert [True, True] == [0 < seconds < 1 for seconds in link.waits[:2]]
    assert ["success"] == [file.status for file in get_batch_files("b1")]


def test_waiting_worker_drains_at_once(house, tmp_path, outage):
    """
    Told to drain while it waits for the database, a worker ends, and does not wait for it to come back.
    """
    outage += ["before"] * 1000
    link = FakeLink()
    link.drains_at = TROUBLE
    make_worker(house, tmp_path, lambda _: None, link).run()

    assert [READY, TROUBLE] == link.said


def test_unconfirmed_claim_is_given_back(house, tmp_path, outage):
    """
    Files of a claim that happened, but whose confirmation was lost on the way, are processed all the same, uncounted.
    """
    fill_batch("b1", 1, now=house.clock.now())
    outage += ["after"]
    make_worker(house, tmp_path, lambda _: None, FakeLink()).run()
    (file,) = get_batch_files("b1")
    with house.sessions.reading() as session:
        tokens = open_tokens(session=session)

    assert ("success", 0, set()) == (file.status, file.retry_count, tokens)


def test_end_needs_no_database(house, tmp_path, monkeypatch):
    """
    A drained worker that can no longer end its empty leases leaves them to expire.
    """

    def gone(_tokens, *, session):
        raise DatabaseUnavailableError("gone")

    fill_batch("b1", 1, now=house.clock.now())
    link = FakeLink()
    monkeypatch.setattr(leasing, "drop_leases", gone)
    make_worker(house, tmp_path, lambda _: setattr(link, "draining", True), link).run()

    assert ["success"] == [file.status for file in get_batch_files("b1")]
