"""A commit that counted and whose answer was lost, one that never arrived, and one that counts late."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from databases import LIFE, connected
from proxy import CUT, LAG, LOSE

from inbox import events
from inbox.core.errors import DatabaseUnavailableError, RetryableError
from inbox.database import leasing, work
from inbox.database.models import FileExtraction, Lease, ProcessingJob, RunSummary
from inbox.domain import InHand
from inbox.handlers.base import File, HandlerSpec
from inbox.handlers.registry import Registry
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.link import IDLE
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import Worker, WorkerPlan

FILE = File(Path("/x"), "a.txt", "a.txt", "text", 1, "0" * 64, "d1", "b1", "r1", 1)
FILES = ("a.txt", "docs/b.txt", "c.txt")

CLAIM = r"INSERT INTO processing_jobs"
REGISTRATION = r"INSERT INTO file_extractions"
PAGE = r"UPDATE file_extractions[^;]*processing_started_at=[^;]*RETURNING"
GROUP = r"UPDATE file_extractions[^;]*raw_extraction"
CLOSING = r"INSERT INTO run_summaries"
REPORTED = r"UPDATE processing_jobs SET[^;]*reported_at="
RELEASE = r"UPDATE file_extractions[^;]*processing_started_at=NULL"


class Patient:
    """Plays the supervisor's end: a worker's waiting takes no time, and it ends when it has been idle twice."""

    def __init__(self):
        self.draining = False
        self.idle = 0

    def require_whole(self):
        """Nothing of a handler's can close this end."""

    def say(self, word):
        self.idle += word == IDLE

    def wait(self, seconds):
        self.draining = self.idle > 1


def worker_of(house, tmp_path, link, handler=lambda _file: {"ok": 1}):
    return Worker(
        WorkerPlan(slot=0, owner="me/w0.1", lease_life=LIFE, poll_interval=timedelta(seconds=30)),
        sessions=house.sessions,
        slots=Slots(tmp_path / "slots", count=1),
        link=link,
        attempting=Attempting(Registry((HandlerSpec("test", handler),)), house.clock, 3, 2.0),
        prepare=lambda claimed: replace(FILE, doc_id=claimed.doc_id, member_path=claimed.member_path),
        clock=house.clock,
        emit=house.events.append,
    )


def patiently(round_, house, times=6):
    """Do a round again and again as a leg does; whatever the database's absence breaks off is repeated."""
    for _ in range(times):
        with suppress(DatabaseUnavailableError):
            round_()
        house.clock.go_on(30)


@pytest.mark.parametrize("action", [LOSE, CUT])
@pytest.mark.parametrize(
    "transaction", [CLAIM, REGISTRATION, PAGE, GROUP, CLOSING, REPORTED], ids=lambda value: value.split("[")[0]
)
def test_every_transaction_may_lose_its_answer(far_house, proxy, postgresql_url, tmp_path, transaction, action):
    """
    Whichever commit is not confirmed, whether it counted or not, all is done in the end: once, and told once.
    """
    house, seen = far_house, []
    rule = proxy.when_committing(action, transaction)
    house.drop(members=FILES)
    patiently(house.intake.round, house)
    worker_of(house, tmp_path, Patient(), lambda file: seen.append(file.doc_id) or {"ok": 1}).run()
    patiently(house.closing.round, house)
    with connected(postgresql_url) as sessions, sessions.reading() as session:
        rows = session.query(FileExtraction).all()
        (job,) = session.query(ProcessingJob).all()
        leases, summaries = session.query(Lease).count(), session.query(RunSummary).count()

    assert rule.met.is_set()
    assert sorted(FILES) == sorted(row.member_path for row in rows)
    assert {("success", 0)} == {(row.status, row.retry_count) for row in rows}
    assert ("completed", 3, 1, 0, 1) == (job.status, job.total_files, job.attempt_count, leases, summaries)
    assert sorted(row.doc_id for row in rows) == sorted(seen)
    assert [] == house.uploads()
    told = [type(event) for event in house.events]
    assert (3, 0, 1) == tuple(
        told.count(kind) for kind in (events.AttemptSucceeded, events.OutcomeLost, events.BatchClosed)
    )
    assert 1 == told.count(events.BatchRegistered)


def test_claim_that_counts_late_is_given_back(far_house, proxy, postgresql_url):
    """
    A batch whose claim is carried out after its connection was given up is taken all the same, by its first attempt.
    """
    house = far_house
    rule = proxy.when_committing(LAG, CLAIM)
    house.drop(members=FILES)
    with pytest.raises(DatabaseUnavailableError):
        house.take()
    house.intake._end_unfinished()
    rule.go.set()
    assert rule.done.wait(30)
    patiently(house.intake.round, house)
    with connected(postgresql_url) as sessions, sessions.reading() as session:
        (job,) = session.query(ProcessingJob).all()

    assert ("processing", 1) == (job.status, job.attempt_count)


def test_page_that_is_claimed_late_is_given_back(far_house, proxy, postgresql_url, tmp_path):
    """
    Files whose claim is carried out after its connection was given up are worked on by the same worker later.
    """
    house, link = far_house, Patient()
    house.drop(members=FILES)
    house.take()
    rule = proxy.when_committing(LAG, PAGE)
    worker = worker_of(house, tmp_path, link)
    wait = link.wait

    def let_it_through_when_idle(seconds):
        if link.idle and not rule.done.is_set():
            rule.go.set()
            assert rule.done.wait(30)
        wait(seconds)

    link.wait = let_it_through_when_idle
    worker.run()
    with connected(postgresql_url) as sessions, sessions.reading() as session:
        rows = session.query(FileExtraction).all()

    assert rule.done.is_set()
    assert {("success", 0)} == {(row.status, row.retry_count) for row in rows}


@pytest.mark.parametrize("action", [LOSE, CUT])
def test_release_that_is_not_confirmed_does_not_kill_the_worker(far_house, proxy, postgresql_url, tmp_path, action):
    """
    A draining worker that cannot give back its page ends in good order, and the page is taken over from it.
    """
    house, link = far_house, Patient()
    house.drop(members=[f"{n}.txt" for n in range(20)])
    house.take()
    seen = []

    def handler(file):
        seen.append(file.doc_id)
        link.draining = len(seen) == 3
        return {"ok": 1}

    rule = proxy.when_committing(action, RELEASE)
    worker_of(house, tmp_path, link, handler).run()
    patiently(
        lambda: list(house.rescuer.rescue(over=(), dead_owners=["me/w0.1"], what_was_in_hand=lambda _owner: [])), house
    )
    with connected(postgresql_url) as sessions, sessions.reading() as session:
        states = [row.status for row in session.query(FileExtraction)]
        leases = session.query(Lease).count()

    assert rule.met.is_set()
    assert (3, 17, 0) == (states.count("success"), states.count("pending"), leases)


@pytest.mark.parametrize("action", [LOSE, CUT])
def test_takeover_that_is_not_confirmed_charges_once(far_house, proxy, postgresql_url, action):
    """
    A takeover whose commit is not confirmed charges the file in hand one attempt, and gives the others back.
    """
    house = far_house
    house.drop(members=FILES)
    house.take()
    with house.sessions.writing() as session:
        page = work.claim_files("dead", limit=10, now=house.clock.now(), life=LIFE, session=session)
    hands = [InHand(page.token, page.files[0].doc_id, 0.0)]
    proxy.when_committing(action, r"DELETE FROM leases")
    patiently(
        lambda: list(house.rescuer.rescue(over=(), dead_owners=["dead"], what_was_in_hand=lambda _owner: hands)), house
    )
    with connected(postgresql_url) as sessions, sessions.reading() as session:
        states = sorted(row.status for row in session.query(FileExtraction))
        leases = session.query(Lease).count()

    assert (["pending", "pending", "retrying"], 0) == (states, leases)


@pytest.mark.parametrize("action", [LOSE, CUT])
def test_heartbeat_that_is_not_confirmed_is_repeated(far_house, proxy, action):
    """
    A heartbeat whose commit is not confirmed is trouble of its round; the next one extends the lease.
    """
    house = far_house
    house.drop(members=FILES)
    house.take()
    with house.sessions.writing() as session:
        work.claim_files("me", limit=10, now=house.clock.now(), life=LIFE, session=session)
    rule = proxy.when_committing(action, r"UPDATE leases")

    def beat():
        with house.sessions.writing() as session:
            return leasing.extend_leases(["me"], now=house.clock.now(), life=LIFE, session=session)

    with pytest.raises(DatabaseUnavailableError):
        beat()

    assert rule.met.is_set()
    assert 1 == beat()


@pytest.mark.parametrize("action", [LOSE, CUT])
def test_forgetting_that_is_not_confirmed_is_repeated(far_house, proxy, postgresql_url, action):
    """
    A batch whose drop was taken away is forgotten, also when the first commit of that is not confirmed.
    """
    house = far_house
    path = house.drop(members=FILES)
    house.registrar.register = _raise(RetryableError("later"))
    house.take()
    path.unlink()
    rule = proxy.when_committing(action, r"DELETE FROM processing_jobs")
    patiently(house.rescuing.round, house)
    with connected(postgresql_url) as sessions, sessions.reading() as session:
        jobs, leases = session.query(ProcessingJob).count(), session.query(Lease).count()

    assert rule.met.is_set()
    assert (0, 0) == (jobs, leases)


def _raise(error):
    def fail(*_arguments):
        raise error

    return fail
