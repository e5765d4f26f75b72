"""Trouble is told once for each cause, however many legs meet it, and once more when the last of them is well."""

import pytest
from pipeline_parts import Clock

from inbox.core.errors import DatabaseBusyError, DatabaseRefusedError, DatabaseUnavailableError, StorageError
from inbox.events import TroubleBegan, TroubleOver
from inbox.service.troubles import Troubles


@pytest.fixture
def told():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def troubles(clock, told):
    return Troubles(clock, told.append)


def test_one_database_is_one_trouble(troubles, clock, told):
    """
    All legs that miss the database, each with its own words for it, are one line, and its return is another.
    """
    troubles.begin("intake", DatabaseUnavailableError("refused"))
    troubles.begin("closing", DatabaseUnavailableError("starting up"))
    troubles.begin("heartbeat", DatabaseBusyError("busy"))
    clock.go_on(7)
    troubles.end("closing")
    troubles.end("intake")
    before = list(told)
    troubles.end("heartbeat")

    assert [TroubleBegan("service", "refused")] == before
    assert [TroubleOver("service", 7.0)] == told[1:]


def test_refusal_after_an_outage_is_told_too(troubles, told):
    """
    A database that is back and lets nobody in is another trouble, and told for itself; its end is the end of both.
    """
    troubles.begin("intake", DatabaseUnavailableError("refused"))
    troubles.begin("closing", DatabaseUnavailableError("refused"))
    troubles.begin("intake", DatabaseRefusedError("wrong password"))
    troubles.begin("closing", DatabaseRefusedError("wrong password"))
    troubles.end("intake")
    troubles.end("closing")

    assert ["refused", "wrong password"] == [event.reason for event in told if isinstance(event, TroubleBegan)]
    assert TroubleOver("service", 0.0) == told[-1]
    assert 3 == len(told)


def test_trouble_of_another_kind_is_the_legs_own(troubles, told):
    """
    A full volume and a database that is away are two troubles, each with an end of its own.
    """
    troubles.begin("intake", StorageError("full"))
    troubles.begin("closing", DatabaseUnavailableError("refused"))
    troubles.end("intake")
    troubles.end("closing")

    assert [TroubleOver("intake", 0.0), TroubleOver("service", 0.0)] == told[2:]


def test_leg_whose_trouble_turns_into_another(troubles, told):
    """
    A leg that gets from one trouble into another is out of the first.
    """
    troubles.begin("intake", StorageError("full"))
    troubles.begin("intake", DatabaseUnavailableError("refused"))
    troubles.end("intake")
    troubles.end("intake")

    assert [
        TroubleBegan("intake", "full"),
        TroubleOver("intake", 0.0),
        TroubleBegan("service", "refused"),
        TroubleOver("service", 0.0),
    ] == told
