"""A leg goes on whatever happens in a round: trouble is said once, waited for, and over when it is over."""

import logging
import threading

import pytest
from pipeline_parts import Clock

from inbox.core.errors import StorageError
from inbox.events import TroubleBegan, TroubleOver
from inbox.pipeline.extracting import NoRoomError
from inbox.service import legs
from inbox.service.legs import Leg


@pytest.fixture
def run_leg(monkeypatch):
    """Return a function that runs a leg through these rounds (an error is raised, None is well) and then stops it."""
    monkeypatch.setattr(legs, "calculate_backoff", lambda *_arguments: 0.0)

    def run(*rounds):
        left, events, done = list(rounds), [], threading.Event()

        def one_round():
            if not left:
                leg.stop()
                done.set()
                return
            error = left.pop(0)
            if error is not None:
                raise error

        leg = Leg("test", one_round, interval=lambda: 0.0, clock=Clock(), emit=events.append)
        leg.start()
        assert done.wait(30)
        assert leg.join(30)
        return leg, events

    return run


def test_trouble_is_said_once_and_its_end_too(run_leg):
    """
    The same trouble in several rounds is one line, and so is its end.
    """
    leg, events = run_leg(None, StorageError("full"), StorageError("full"), StorageError("full"), None)

    assert [TroubleBegan("test", "full"), TroubleOver("test", 0.0)] == events
    assert leg.trouble is None
    assert not leg.is_alive


def test_new_trouble_is_said_anew(run_leg):
    """
    When the trouble becomes another one, that is told.
    """
    _, events = run_leg(StorageError("full"), StorageError("gone"), None)

    assert ["full", "gone"] == [event.reason for event in events if isinstance(event, TroubleBegan)]


def test_surprise_does_not_end_a_leg(run_leg, caplog):
    """
    A bug in a round is logged with its traceback, and the leg goes on.
    """
    with caplog.at_level(logging.ERROR, "inbox"):
        _, events = run_leg(ZeroDivisionError("a bug"), None)

    assert [TroubleBegan, TroubleOver] == [type(event) for event in events]
    assert "met a surprise" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_trouble_of_one_drop_does_not_hold_up_the_others(monkeypatch):
    """
    While one archive waits for room, a ring begins a round at once, as ever; trouble of the volume has its backoff.
    """
    monkeypatch.setattr(legs, "calculate_backoff", lambda *_arguments: 3600.0)
    rounds = threading.Semaphore(0)

    def one_round():
        rounds.release()
        raise NoRoomError(1, "so much")

    events = []
    leg = Leg("test", one_round, interval=lambda: 3600.0, clock=Clock(), emit=events.append)
    leg.start()
    assert rounds.acquire(timeout=30)
    leg.bell.ring()

    assert rounds.acquire(timeout=30)
    assert StorageError.is_for_all
    leg.stop()
    assert leg.join(30)
    assert not leg.is_held_up
    assert [TroubleBegan] == [type(event) for event in events]


def test_bell_brings_a_round_forward():
    """
    A ring begins a round at once, however long the interval is.
    """
    rounds = threading.Semaphore(0)
    leg = Leg("test", rounds.release, interval=lambda: 3600.0, clock=Clock(), emit=lambda _event: None)
    leg.start()
    assert rounds.acquire(timeout=30)
    leg.bell.ring()

    assert rounds.acquire(timeout=30)
    leg.stop()
    assert leg.join(30)
    assert leg.is_stopping
