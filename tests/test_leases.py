"""Leases: one holder, versions that always change, and exactly one winner of every race."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

from databases import LIFE, NOW

from inbox.database import leasing
from inbox.database.leasing import (
    HeldLease,
    confirm_lease,
    drop_leases,
    extend_leases,
    find_leases,
    lease_owners,
    leases_of,
    open_lease,
    open_tokens,
    take_over,
)


def opened(database, owner="a", now=NOW):
    with database.writing() as session:
        return open_lease(owner, now=now, life=LIFE, session=session)


def seen(database, token) -> HeldLease:
    with database.reading() as session:
        return next(lease for lease in find_leases(session=session) if lease.token == token)


def confirmed(database, token, now=NOW):
    with database.writing() as session:
        return confirm_lease(token, now=now, life=LIFE, session=session)


def beat(database, *owners, now=NOW):
    with database.writing() as session:
        return extend_leases(owners, now=now, life=LIFE, session=session)


def taken(database, lease, *, dead=False):
    with database.writing() as session:
        return take_over(lease, owner_is_dead=dead, session=session)


def dropped(database, *tokens):
    with database.writing() as session:
        return drop_leases(tokens, session=session)


def test_heartbeat_changes_all_leases_of_an_owner(database):
    """
    A heartbeat gives all of an owner's leases another version, and nobody else's.
    """
    mine, yours = opened(database), opened(database, "b")
    before = seen(database, mine), seen(database, yours)
    extended = beat(database, "a", now=NOW + timedelta(seconds=30))

    assert 1 == extended
    assert before[0] != seen(database, mine)
    assert before[1] == seen(database, yours)
    assert NOW + LIFE < seen(database, mine).expires_at


def test_version_changes_whatever_the_clock_does(database, monkeypatch):
    """
    Also under a clock that stands still, and with the same lot drawn twice, the next version is another one.
    """
    monkeypatch.setattr(leasing.secrets, "randbelow", lambda _: 5)
    token = opened(database)
    versions = []
    for _ in range(3):
        beat(database, "a")
        versions.append(seen(database, token))
        confirmed(database, token)
        versions.append(seen(database, token))

    assert all(one != other for one, other in pairwise(versions))


def test_versions_seldom_come_back(database):
    """
    Under a clock that stands still no version is one that was seen before.
    """
    token = opened(database)
    versions = set()
    for _ in range(20):
        beat(database, "a")
        versions.add(seen(database, token).expires_at)

    assert 19 <= len(versions)


def test_lease_that_was_extended_meanwhile_is_not_taken_over(database):
    """
    Between an observer that saw a lease unchanged and the holder that beats after all, the holder wins.
    """
    token = opened(database)
    lease = seen(database, token)
    beat(database, "a")

    assert not taken(database, lease)
    assert taken(database, seen(database, token))


def test_lease_of_a_dead_owner_goes_at_any_version(database):
    """
    Where the owner is known to be gone, a heartbeat that was still under way saves nothing.
    """
    token = opened(database)
    lease = seen(database, token)
    beat(database, "a")

    assert taken(database, lease, dead=True)
    assert set() == {lease.token for lease in all_leases(database)}


def all_leases(database):
    with database.reading() as session:
        return find_leases(session=session)


def test_lost_lease_cannot_be_confirmed(database):
    """
    A holder whose lease was taken over learns it when it asks, and its heartbeat brings nothing back.
    """
    token = opened(database)
    first = confirmed(database, token)
    won = taken(database, seen(database, token))

    assert (True, True) == (first, won)
    assert not confirmed(database, token)
    assert 0 == beat(database, "a")
    assert [] == all_leases(database)


def test_confirming_and_taking_over_exclude_each_other(database):
    """
    Of a holder that confirms its lease and an observer that takes it over as it saw it, exactly one succeeds.
    """
    for _ in range(10):
        token = opened(database)
        lease = seen(database, token)
        with ThreadPoolExecutor(2) as pool:
            kept = pool.submit(confirmed, database, token)
            won = pool.submit(taken, database, lease)
        assert kept.result() != won.result()


def test_one_of_many_rescuers_wins(database):
    """
    Of many that take one lease over at once, exactly one does.
    """
    lease = seen(database, opened(database))
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda _: taken(database, lease), range(12)))

    assert 1 == sum(won)


def test_finishing_and_taking_over_exclude_each_other(database):
    """
    Of a holder that ends its lease and an observer that takes it over, exactly one succeeds.
    """
    for _ in range(10):
        token = opened(database)
        lease = seen(database, token)
        with ThreadPoolExecutor(2) as pool:
            ended = pool.submit(dropped, database, token)
            won = pool.submit(taken, database, lease)
        assert 1 == ended.result() + won.result()


def test_finished_lease_cannot_be_taken_over(database):
    """
    A holder that ends its lease first leaves nothing for a rescuer, and the other way round.
    """
    first, second = seen(database, opened(database)), seen(database, opened(database))
    ended = dropped(database, first.token)
    rescued = taken(database, second)

    assert (1, False, True, 0, 0) == (
        ended,
        taken(database, first),
        rescued,
        dropped(database, second.token),
        dropped(database),
    )


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
        assert 2 == len(leases_of("a", session=session))
        assert tokens == {lease.token for lease in find_leases(session=session)}
