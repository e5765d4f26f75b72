"""The service while its PostgreSQL is away: it says so once, is not ready, loses nothing, and goes on by itself."""

import signal
import time

import pytest
from outages import ask, audit, execute, is_ready, troubles, wait_until_ready
from postgres import FAST, NoServerError, own_server
from processes import Storage, wait_for
from proxy import HOLD, STALL, proxied
from sqlalchemy import make_url
from zips import Member, archive

pytestmark = pytest.mark.slow
ONCE = [("TroubleBegan", "service"), ("TroubleOver", "service")]
GROUP = r"UPDATE file_extractions[^;]*raw_extraction"
AT_THE_LATEST_SECONDS = 30
"""Far more than the longest backoff: the machine may be busy."""


def storage_at(tmp_path, url, **settings):
    return Storage(tmp_path / "shared", url, HANDLERS="handlers_for_processes", DATABASE_TIMEOUT=1, **settings)


@pytest.fixture
def durable_server():
    """A server of this test alone that keeps what it committed when it is killed, unlike the others of the tests."""
    try:
        with own_server({**FAST, "synchronous_commit": "on"}) as server:
            yield server
    except NoServerError as error:
        pytest.skip(str(error))


def members(count, name="slow"):
    return archive([Member(f"{name}-{number}.txt", b"%d" % number) for number in range(count)])


@pytest.fixture
def shared(tmp_path, behind_proxy):
    return storage_at(tmp_path, behind_proxy[1], TEST_SLOW_SECONDS="0.05")


def settled(shared, service, url, drops):
    """Wait until everything is done, and hold it against what was dropped."""
    for name in drops:
        shared.wait_for_receipt(name)
    wait_for(lambda: not list((shared.base / "uploads").iterdir()), "the moves")
    assert 0 == service.terminate(), shared.tail()
    audit(url, drops)
    return sorted(doc_id for doc_id, *_ in shared.calls())


def test_every_kind_of_absence_is_one_line_and_is_got_over(shared, proxy, postgresql_url, unused_port):
    """
    Refused, reset, stalled or read-only in the midst of its work: one line, not ready, one line, and all is done once.
    """
    name = make_url(postgresql_url).database

    def make_read_only():
        execute(postgresql_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        proxy.reset()

    def make_writable():
        execute(postgresql_url, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    absences = {
        "refused": (proxy.refuse, proxy.resume),
        "stalled": (proxy.stall, proxy.resume),
        "readonly": (make_read_only, make_writable),
    }
    until_told, until_ready, drops = {}, {}, {}
    with shared.service(HTTP_PORT=unused_port) as service:
        for number, (kind, (take_away, bring_back)) in enumerate(absences.items()):
            wait_for(lambda: is_ready(unused_port), "readiness")
            begun = len(shared.calls())
            drops[f"{kind}.zip"] = 30 + number
            shared.drop(f"{kind}.zip", members(30 + number))
            wait_for(lambda begun=begun: len(shared.calls()) > begun + 3, "the calls")
            take_away()
            began = time.monotonic()
            wait_for(lambda: not is_ready(unused_port), "the probe's word")
            until_told[kind] = time.monotonic() - began
            wait_for(lambda number=number: len(troubles(service)) == 2 * number + 1, "the line")
            wait_for(lambda: ask(unused_port)["checks"]["heartbeat"] != "ok", "the trouble of a second leg")
            bring_back()
            until_ready[kind] = wait_until_ready(unused_port)
            shared.wait_for_receipt(f"{kind}.zip")
        told = troubles(service)
        called = settled(shared, service, postgresql_url, drops)

    assert ONCE * len(absences) == told
    assert sorted(set(called)) == called
    assert [] == service.events("WorkerDied")
    assert max(until_ready.values()) < AT_THE_LATEST_SECONDS


def test_server_that_dies_and_starts_again(tmp_path, durable_server, unused_port):
    """
    Shut down fast, at once, or killed, and started again: what was recorded stays, and everything is done once.
    """
    local, url = durable_server.local, durable_server.create_database()
    shared = storage_at(tmp_path, url, TEST_SLOW_SECONDS="0.05")
    until_ready, drops = {}, {}
    with shared.service(HTTP_PORT=unused_port) as service:
        for number, how in enumerate((signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)):
            wait_for(lambda: is_ready(unused_port), "readiness")
            begun = len(shared.calls())
            drops[f"{how.name}.zip"] = 30 + number
            shared.drop(f"{how.name}.zip", members(30 + number))
            wait_for(lambda begun=begun: len(shared.calls()) > begun + 3, "the calls")
            local.stop(how)
            wait_for(lambda: not is_ready(unused_port), "the probe's word")
            wait_for(lambda number=number: len(troubles(service)) == 2 * number + 1, "the line")
            local.start()
            until_ready[how.name] = wait_until_ready(unused_port)
            shared.wait_for_receipt(f"{how.name}.zip")
        told = troubles(service)
        called = settled(shared, service, url, drops)

    assert ONCE * 3 == told
    assert sorted(set(called)) == called
    assert [] == service.events("WorkerDied")


def test_backend_killed_while_it_commits(shared, proxy, postgresql_url):
    """
    Every connection terminated by an administrator just before a group commits: the group is recorded, once.
    """
    rule = proxy.when_committing(HOLD, GROUP)
    with shared.service() as service:
        shared.drop("a.zip", members(20))
        assert rule.met.wait(60)
        execute(
            postgresql_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'inbox' AND datname = current_database()",
        )
        rule.go.set()
        called = settled(shared, service, postgresql_url, {"a.zip": 20})

    assert sorted(set(called)) == called
    assert [] == service.events("OutcomeLost")


def test_answer_that_stops_in_its_middle_is_given_up(shared, proxy, postgresql_url):
    """
    A connection that falls silent in the middle of an answer is given up in bounded time, and the work goes on.
    """
    rule = proxy.when_asked(STALL, r"UPDATE file_extractions[^;]*processing_started_at=[^;]*RETURNING")
    with shared.service(LEASE_SECONDS=60) as service:
        shared.drop("a.zip", members(5))
        called = settled(shared, service, postgresql_url, {"a.zip": 5})

    assert rule.met.is_set()
    assert sorted(set(called)) == called


def test_grace_is_kept_in_the_midst_of_an_outage(shared, proxy, postgresql_url, unused_port):
    """
    Asked to stop while the database is silent and work is in hand, the service ends in its grace; the next completes.
    """
    grace = 4
    with shared.service(HTTP_PORT=unused_port, SHUTDOWN_GRACE_SECONDS=grace) as service:
        shared.drop("a.zip", members(40))
        wait_for(lambda: len(shared.calls()) > 3, "the calls")
        proxy.stall()
        wait_for(lambda: not is_ready(unused_port), "the probe's word")
        began = time.monotonic()
        service.terminate()
        lasted = time.monotonic() - began
    proxy.resume()
    with shared.service() as service:
        settled(shared, service, postgresql_url, {"a.zip": 40})

    assert lasted < grace + AT_THE_LATEST_SECONDS


def test_proxy_speaks_of_what_it_sees(postgresql_url):
    """
    The proxy itself lets everything through unchanged while nothing is to go wrong.
    """
    with proxied(postgresql_url) as (_, url):
        execute(url, "SELECT repeat('x', 1000000)")
