"""Observing: who does not beat is taken over in time, and who does, or could not for all, is not."""

from contextlib import suppress
from datetime import timedelta

import pytest
from databases import LIFE

from inbox.core.errors import DatabaseUnavailableError
from inbox.database import leasing
from inbox.database.leasing import HEARTBEAT_SHARE, TAKEOVER_SHARE, TRUST_SHARE
from inbox.pipeline.observing import Observer
from inbox.pipeline.runner.heartbeat import Heartbeat
from inbox.utils.lasting import Lasting

ROUND = LIFE.total_seconds() * HEARTBEAT_SHARE


@pytest.fixture
def lease(house):
    """A lease of somebody on another machine."""
    return open_one(house)


def open_one(house, owner="other"):
    with house.sessions.writing() as session:
        return leasing.open_lease(owner, now=house.clock.now(), life=LIFE, session=session)


def beat(house, owner="other"):
    with house.sessions.writing() as session:
        leasing.extend_leases([owner], now=house.clock.now(), life=LIFE, session=session)


def seconds_until_over(house, observer, *, step=ROUND):
    """Look every `step` seconds until something is over; return how long that took."""
    began = house.clock.ticks
    while not observer.look():
        house.clock.go_on(step)
    return house.clock.ticks - began


@pytest.fixture
def gone(monkeypatch):
    """A database that does not answer while `gone` is not empty."""
    troubles = []
    for name in ("find_leases", "extend_leases"):
        real = getattr(leasing, name)

        def ask(*arguments, real=real, **options):
            if troubles:
                raise DatabaseUnavailableError("gone")
            return real(*arguments, **options)

        monkeypatch.setattr(leasing, name, ask)
    return troubles


def test_dead_holder_is_found_within_a_life(house, lease):
    """
    However the rounds fall, from the last sign of life to the takeover it takes less than the life of a lease.
    """
    house.clock.go_on(ROUND - 0.001)
    taken = ROUND + seconds_until_over(house, house.observer)

    assert LIFE.total_seconds() * TAKEOVER_SHARE <= taken < LIFE.total_seconds()
    assert [lease] == [seen.token for seen in house.observer.over()]


def test_holder_trusts_its_lease_for_less_than_anybody_waits():
    """
    The time for which a confirmation is trusted ends well before a takeover, and after the next heartbeat.
    """
    assert HEARTBEAT_SHARE < TRUST_SHARE < TAKEOVER_SHARE
    assert TAKEOVER_SHARE + 2 * HEARTBEAT_SHARE < 1


@pytest.mark.parametrize("hours", [-5, 5, 24 * 365])
@pytest.mark.parametrize("whose", ["holder", "observer", "both"])
def test_clocks_that_differ_or_jump_rob_nobody(house, lease, hours, whose):
    """
    Wall clocks that are hours apart, or jump in the middle, take nothing from a holder that beats.
    """
    jump = timedelta(hours=hours)
    over = []
    for number in range(12):
        if whose != "observer" and number >= 3:
            house.clock.time += jump if number % 2 else -jump
        beat(house)
        house.clock.time += jump if whose == "observer" else timedelta(0)
        over.append(house.observer.look())
        house.clock.go_on(ROUND)

    assert [False] * 12 == over


@pytest.mark.parametrize("hours", [-5, 5])
def test_clock_that_jumped_keeps_nothing_from_being_taken_over(house, lease, hours):
    """
    A clock that was set back or forward while a holder died changes nothing about when it is found.
    """
    house.observer.look()
    house.clock.time += timedelta(hours=hours)

    assert LIFE.total_seconds() * TAKEOVER_SHARE == seconds_until_over(house, house.observer)


def test_pause_of_the_observer_counts_for_little(house, lease):
    """
    An observer that was stopped, or suspended with all the others, gives them a whole round to beat when it wakes.
    """
    house.observer.look()
    house.clock.go_on(ROUND)
    house.observer.look()
    house.clock.go_on(3600)
    first = house.observer.look()
    house.clock.go_on(ROUND / 3)
    beat(house)
    house.clock.go_on(ROUND * 2 / 3)

    assert (False, False) == (first, house.observer.look())


def test_slow_observer_finds_the_dead_all_the_same(house, lease):
    """
    An observer whose rounds take far too long counts each for a part, and still comes to an end.
    """
    assert seconds_until_over(house, house.observer, step=1000) <= 4000


def test_outage_begins_the_observation_anew(house, lease, gone):
    """
    When a database comes back nobody is robbed: the living have half a life to beat, as if seen for the first time.
    """
    for _ in range(3):
        house.observer.look()
        house.clock.go_on(ROUND)
    gone.append(1)
    with pytest.raises(DatabaseUnavailableError):
        house.observer.look()
    gone.clear()

    assert [] == house.observer.over()
    assert LIFE.total_seconds() * TAKEOVER_SHARE == seconds_until_over(house, house.observer)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5, 3])
def test_living_survive_outages_of_any_length(house, gone, share):
    """
    Two services that beat and look in turn rob nobody after outages, whichever of them is the first to be back.
    """
    robbed = []
    services = []
    for owner in ("a", "b"):
        open_one(house, owner)
        observer = Observer(house.sessions, house.clock, life=LIFE)
        services.append(
            Heartbeat(
                house.sessions, house.clock, LIFE, lambda owner=owner: [owner], observer, lambda: robbed.append(1)
            )
        )
    for turn in range(24):
        for service in services if turn % 3 else reversed(services):
            with suppress(DatabaseUnavailableError):
                service.round()
        gone[:] = [1] * (turn % 4 == 1)
        house.clock.go_on(LIFE.total_seconds() * share if gone else ROUND)

    assert [] == robbed


def test_heartbeat_beats_before_it_looks(house):
    """
    A service that was paused for hours finds its own leases alive, if nobody has taken them.
    """
    open_one(house, "me")
    over = []
    heart = Heartbeat(house.sessions, house.clock, LIFE, lambda: ["me"], house.observer, lambda: over.append(1))
    for _ in range(4):
        heart.round()
        house.clock.go_on(3600)
    heart.round()

    assert [] == over


def test_heartbeat_tells_of_a_lease_that_is_over(house, lease):
    """
    Whoever rescues is called as soon as a lease is over, and does not have to come by.
    """
    over = []
    heart = Heartbeat(house.sessions, house.clock, LIFE, lambda: ["me"], house.observer, lambda: over.append(1))
    for _ in range(4):
        heart.round()
        house.clock.go_on(ROUND)

    assert [1] == over


def test_heartbeat_that_fails_judges_nobody(house, lease, gone):
    """
    A service that cannot beat forgets what it has seen of others.
    """
    heart = Heartbeat(house.sessions, house.clock, LIFE, lambda: ["me"], house.observer, lambda: None)
    for _ in range(3):
        heart.round()
        house.clock.go_on(ROUND)
    gone.append(1)
    with pytest.raises(DatabaseUnavailableError):
        heart.round()
    gone.clear()
    house.clock.go_on(ROUND)

    assert not house.observer.look()


def test_time_counts_between_looks_only():
    """
    What a look itself takes, and what is longer than a gap may be, is not counted; what is not seen is forgotten.
    """
    lasting = Lasting(10.0)
    lasting.look(["a", "b"], began=0.0, ended=5.0)
    lasting.look(["a"], began=9.0, ended=9.5)
    lasting.look(["a", "b"], began=109.5, ended=109.5)

    assert {"a"} == lasting.for_at_least(14.0)
    assert set() == lasting.for_at_least(14.1)
    assert {"a", "b"} == lasting.for_at_least(0.0)
    lasting.forget()
    assert set() == lasting.for_at_least(0.0)
