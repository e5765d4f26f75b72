"""Recording: outcomes become groups, by count and by time; none is lost, and none counts after its lease."""

import threading

import pytest
from databases import LIFE, fill_batch

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError
from inbox.database import work
from inbox.database.operations import get_batch_files
from inbox.events import AttemptFailed, AttemptSucceeded, OutcomeLost
from inbox.pipeline.dispatching import recording
from inbox.pipeline.dispatching.recording import Recorder


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
    recorder = Recorder(
        house.sessions,
        house.events.append,
        on_trouble=lambda: told.append("trouble"),
        on_relief=lambda: told.append("relief"),
    )
    recorder.add(claimed.files[0], house._outcome(claimed.files[0], {}))
    recorder.close()

    assert ["trouble"] * 3 + ["relief"] == told
    assert 1 == len(house.heard(AttemptSucceeded))


def test_refused_outcomes_are_not_forgotten(house, claimed, monkeypatch):
    """
    Outcomes that the database refused when it was their time are offered again, and the worker hears of a refusal.
    """
    tried, record = threading.Event(), work.record_outcomes

    def refuse(_outcomes, *, session):
        tried.set()
        raise DatabaseRefusedError("no")

    monkeypatch.setattr(work, "record_outcomes", refuse)
    recorder = Recorder(house.sessions, house.events.append)
    recorder.add(claimed.files[0], house._outcome(claimed.files[0], {}))
    tried.wait(30)
    with pytest.raises(DatabaseRefusedError):
        recorder.flush()
    monkeypatch.setattr(work, "record_outcomes", record)
    recorder.close()

    assert 1 == len(house.heard(AttemptSucceeded))
    assert "success" == get_batch_files("b1")[0].status
