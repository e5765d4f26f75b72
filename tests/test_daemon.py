"""The service's threads around the pipeline: from their start to an end in good order, whatever is in the way."""

import threading
from datetime import timedelta

import pytest

from inbox.core.errors import DatabaseUnavailableError, StorageError
from inbox.events import BatchClosed, BatchRefused, BatchReported, WatchingByScan
from inbox.pipeline import extracting
from inbox.pipeline.extracting import NoRoomError
from inbox.service import daemon as module
from inbox.service.daemon import Daemon, Rhythm, Tally
from inbox.utils.clock import SystemClock


class Crew:
    """Plays the supervisor: its loop ends when it is told to, or only when it is killed."""

    def __init__(self):
        self.is_stubborn = False
        self.calls = []
        self.over = threading.Event()

    def run(self):
        self.over.wait(30)

    def wake(self):
        self.calls.append("wake")

    def drain(self):
        self.calls.append("drain")
        if not self.is_stubborn:
            self.over.set()

    def kill(self):
        self.calls.append("kill")
        self.over.set()

    def owners(self):
        return ["me/w0.1"]

    def is_healthy(self):
        return True

    def paused_handlers(self):
        return {}


class BlindWatch:
    """A watch that the system does not grant."""

    def start(self):
        raise StorageError("no watch to give")

    def ailment(self):
        return "not watched"

    def stop(self):
        pass


@pytest.fixture
def make(house):
    """Return a function that puts a service together from the house's stages."""

    def put_together(**changes):
        return Daemon(
            **{
                "intake": house.intake,
                "closing": house.closing,
                "rescuing": house.rescuing,
                "supervisor": Crew(),
                "make_watch": lambda _bell, _heard: BlindWatch(),
                "engine": house.sessions.factory.kw["bind"],
                "sessions": house.sessions,
                "volume": house.volume,
                "clock": SystemClock(),
                "rhythm": Rhythm(timedelta(seconds=0.05), timedelta(seconds=60), timedelta(seconds=30)),
                "owner": "me",
                "emit": house.events.append,
                "tally": Tally(),
            }
            | changes
        )

    return put_together


def test_everything_is_well_while_it_runs(make):
    """
    Between start and stop every thread lives and every part is ready; before and afterwards no thread runs.
    """
    daemon = make()
    before = daemon.live().is_well
    with daemon.running():
        during = daemon.live(), daemon.ready()

    assert not before
    assert ({}, {}) == tuple({name: told for name, told in health.checks.items() if told} for health in during)
    assert {"database", "volume", "workers", "intake", "closing", "rescuing", "heartbeat"} <= during[1].checks.keys()
    assert not any(leg.is_alive for leg in daemon._legs)


def test_readiness_is_told_while_a_part_hangs(make, monkeypatch):
    """
    A database that takes the question and does not answer is named in time, and asked once at a time.
    """
    asked, over = threading.Semaphore(0), threading.Event()

    def hang(_engine):
        asked.release()
        over.wait(30)

    daemon = make()
    with daemon.running():
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
        monkeypatch.setattr(module, "ping", hang)
        told = [daemon.ready().checks["database"] for _ in range(3)]
        once, twice = asked.acquire(timeout=30), asked.acquire(blocking=False)
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 30)
        over.set()
        afterwards = daemon.ready().checks["database"]

    assert ["no answer within 0.01 s"] * 3 == told
    assert (True, False) == (once, twice)
    assert afterwards is None


def test_stopping_service_lives_and_is_not_ready(make):
    """
    While the service stops nobody should restart it, and nobody should count on it.
    """
    daemon = make()
    with daemon.running():
        pass

    assert daemon.live().is_well
    assert "stopping" == daemon.ready().checks["service"]


def test_nothing_to_do_is_soon_done(make):
    """
    With nothing in the uploads and no batch open, waiting is over after one round of the intake.
    """
    daemon, progress = make(), []
    with daemon.running():
        daemon.wait_until_done(lambda: False, progress.append)

    assert progress
    assert {} == daemon.incomplete_drops()


def test_waiting_survives_an_outage(make, monkeypatch):
    """
    A database that is away for a moment does not end the wait until everything is done.
    """
    answers = [DatabaseUnavailableError("gone"), DatabaseUnavailableError("gone"), False]

    def is_everything_done(_sessions):
        answer = answers.pop(0) if answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "is_everything_done", is_everything_done)
    daemon = make()
    with daemon.running():
        daemon.wait_until_done(lambda: False, lambda _sessions: None)

    assert [] == answers


def test_scan_has_the_last_word(make, monkeypatch):
    """
    A drop that was left to a batch is seen to when that batch is done, before the wait ends.
    """
    daemon = make()
    begun_when_done = []

    def is_everything_done(_sessions):
        begun_when_done.append(daemon._rounds_begun)
        return True

    monkeypatch.setattr(module, "is_everything_done", is_everything_done)
    with daemon.running():
        daemon.wait_until_done(lambda: False, lambda _sessions: None)
        ended = daemon._rounds_ended

    assert ended > begun_when_done[0]


def test_workers_that_do_not_end_are_killed_within_the_grace(make):
    """
    What is left of the workers when the grace period is nearly over is killed.
    """
    crew = Crew()
    crew.is_stubborn = True
    daemon = make(supervisor=crew, rhythm=Rhythm(timedelta(seconds=1), timedelta(seconds=60), timedelta(seconds=2)))
    with daemon.running():
        pass

    assert ["drain", "kill"] == [call for call in crew.calls if call != "wake"]


def test_heart_beats_until_the_workers_have_ended(make):
    """
    The leases of workers that finish their files in hand are extended to the last.
    """
    beating = []
    crew = Crew()
    crew.run = lambda: (crew.over.wait(30), beating.append(not daemon._heartbeat.is_stopping))
    daemon = make(supervisor=crew)
    with daemon.running():
        pass

    assert [True] == beating


def test_missing_watch_is_told_once(make, house):
    """
    Without a watch the scan finds drops, and that is said once, however often it is tried again.
    """
    daemon, rounds = make(), threading.Semaphore(0)
    take_in = daemon.intake.round
    daemon.intake.round = lambda: (take_in(), rounds.release())
    with daemon.running():
        for _ in range(3):
            assert rounds.acquire(timeout=30)

    assert 1 == len(house.heard(WatchingByScan))


def test_readiness_tells_how_drops_are_found(make):
    """
    To be reduced to scanning is told, with the reason and the interval, and is no lack of readiness.
    """
    daemon = make(rhythm=Rhythm(timedelta(seconds=15), timedelta(seconds=60), timedelta(seconds=30)))
    with daemon.running():
        told = daemon.ready()

    assert told.is_well
    assert {
        "by": "scan",
        "reason": "no watch to give",
        "scan_interval_seconds": 5,
        "unannounced_drops": 0,
    } == told.as_json()["watching"]


def test_start_that_fails_again_and_again_keeps_nobody_from_being_rescued(make):
    """
    What is to be done at the start is tried until it succeeds, and each time a round of rescuing comes after it.
    """
    service, done = make(), []

    def fail():
        done.append("start")
        if len(done) < 4:
            raise DatabaseUnavailableError("it takes too long")

    service.at_start = fail
    service.rescuing.round = lambda: done.append("rescue")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            service._rescue()
    for _ in range(2):
        service._rescue()

    assert ["start", "rescue"] * 3 + ["rescue"] == done


def test_trouble_of_one_drop_is_noted_and_is_no_lack_of_readiness(make):
    """
    While one archive waits for room the others are taken, so the service is ready, and tells of the one.
    """
    told = threading.Semaphore(0)

    def one_round():
        told.release()
        raise NoRoomError(1, "so much")

    daemon = make()
    daemon.intake.round = one_round
    with daemon.running():
        assert told.acquire(timeout=30)
        assert told.acquire(timeout=30)
        ready = daemon.ready()

    assert ready.is_well
    assert {"intake": "not enough room on the volume for so much (free some space; the drop waits)"} == ready.notes
    assert ready.notes == ready.as_json()["notes"]


def test_full_volume_is_a_lack_of_readiness(make, monkeypatch):
    """
    While no archive fits, however small, nobody should count on the service.
    """
    daemon = make()
    with daemon.running():
        before = daemon.ready().checks["volume"]
        monkeypatch.setattr(extracting, "HEADROOM_BYTES", 1 << 60)
        full = daemon.ready().checks["volume"]

    assert before is None
    assert full.startswith("the volume is full")


def test_scan_comes_after_the_look_at_the_watch(make):
    """
    A watch that has to be begun anew begins before the scan, so that no drop falls between the two.
    """
    order, scanned = [], threading.Event()
    daemon = make()
    daemon._lookout.check = lambda: order.append("watch")
    daemon.intake.on_scanned = lambda _drops: (order.append("scan"), scanned.set())
    with daemon.running():
        assert scanned.wait(30)

    assert ["watch", "scan"] == order[:2]


def test_tally_counts_what_did_not_go_well():
    """
    A run's exit status depends on refused batches, and on closed ones that are not completed.
    """
    tally = Tally()
    for state in ("completed", "partial", "failed"):
        tally(BatchClosed("b", "a.zip", "r", state, 1, 1, 0, 1, 0, 1.0))
    tally(BatchRefused("b", "a.zip", "ENCRYPTED", "no"))
    tally(BatchReported("b", "a.zip", "partial", "receipt", ""))

    assert (3, 3) == (tally.closed, tally.failed)
