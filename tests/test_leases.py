"""Leases: one holder, an expiry, and exactly one winner of every race."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from databases import LIFE, NOW

from inbox.database import leasing
from inbox.database.leasing import (
    ExpiredLease,
    drop_leases,
    extend_leases,
    find_expired,
    is_held,
    lease_owners,
    leases_of,
    open_lease,
    open_tokens,
    take_over,
)

OVER = NOW + LIFE


def opened(database, owner="a", now=NOW):
    with database.writing() as session:
        return open_lease(owner, now=now, life=LIFE, session=session)


def held(database, token, owner="a", now=NOW):
    with database.reading() as session:
        return is_held(token, owner, now=now, session=session)


def taken(database, token, *, now=OVER, dead=False):
    with database.writing() as session:
        return take_over(ExpiredLease(token, "a"), now=now, owner_is_dead=dead, session=session)


def test_lease_holds_until_it_expires(database):
    """
    A lease is its owner's, and nobody else's, until its time is over.
    """
    token = opened(database)

    assert held(database, token)
    assert not held(database, token, owner="b")
    assert not held(database, "other")
    assert not held(database, token, now=OVER)


def test_heartbeat_extends_all_leases_of_an_owner(database):
    """
    A heartbeat moves the expiry of all of an owner's leases, and of nobody else's.
    """
    mine, yours = opened(database), opened(database, "b")
    with database.writing() as session:
        extended = extend_leases(["a"], now=NOW + timedelta(seconds=30), life=LIFE, session=session)

    assert 1 == extended
    assert held(database, mine, now=OVER)
    assert not held(database, yours, "b", now=OVER)


def test_expired_and_orphaned_leases_are_found(database):
    """
    Leases past their time are found, and those of owners known to be gone at once.
    """
    old, young, orphan = opened(database), opened(database, "b", OVER), opened(database, "c", OVER)
    with database.reading() as session:
        by_time = find_expired(now=OVER, dead_owners=[], session=session)
        with_dead = find_expired(now=OVER, dead_owners=["c"], session=session)
        owned = leases_of("b", session=session)

    assert [old] == [lease.token for lease in by_time]
    assert {old, orphan} == {lease.token for lease in with_dead}
    assert [ExpiredLease(young, "b")] == owned


def test_living_lease_is_not_taken_over(database):
    """
    A lease that was extended meanwhile stays; one whose owner is gone does not wait for its expiry.
    """
    token = opened(database)

    assert not taken(database, token, now=NOW)
    assert taken(database, token, now=NOW, dead=True)
    assert not held(database, token)


def test_one_of_many_rescuers_wins(database):
    """
    Of many that take one expired lease over at once, exactly one does.
    """
    token = opened(database)
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda _: taken(database, token), range(12)))

    assert 1 == sum(won)


def test_finished_lease_cannot_be_taken_over(database):
    """
    A holder that ends its lease first leaves nothing for a rescuer, and the other way round.
    """
    first, second = opened(database), opened(database)
    with database.writing() as session:
        ended = drop_leases([first], session=session)
    rescued = taken(database, second)
    with database.writing() as session:
        too_late = drop_leases([second], session=session)
        nothing = drop_leases([], session=session)

    assert (1, False, True, 0, 0) == (ended, taken(database, first), rescued, too_late, nothing)


def test_tokens_are_never_the_same():
    """
    Every lease has a token of its own.
    """
    assert 100 == len({leasing.new_token() for _ in range(100)})


def test_owners_and_tokens_are_listed(database):
    """
    Who holds leases, and which there are, can be asked.
    """
    tokens = {opened(database, owner) for owner in ("a", "a", "b")}
    with database.reading() as session:
        assert tokens == open_tokens(session=session)
        assert {"a", "b"} == lease_owners(session=session)
