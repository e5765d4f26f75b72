"""No wait for PostgreSQL is without end, and what its errors mean to the service."""

import threading
from contextlib import closing

import psycopg2
import pytest
from databases import LIFE, connected, fill_batch
from outages import execute
from processes import wait_for
from proxy import STALL
from sqlalchemy import make_url, text

from inbox.core.errors import DatabaseBusyError, DatabaseRefusedError, DatabaseUnavailableError
from inbox.database.connection import get_session, ping

SECOND = 1.0


@pytest.fixture
def sessions(behind_proxy):
    """Sessions that wait for a lock one second, two for a statement, and four for its answer."""
    with connected(behind_proxy[1], timeout=SECOND) as made:
        yield made


def ask(sessions, statement="SELECT 1"):
    with sessions.writing() as session:
        return session.execute(text(statement)).scalar()


def connections_of_inbox(url):
    """Return how many connections to this database the server has from us."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'inbox' AND datname = current_database()"
    with closing(psycopg2.connect(plain)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


@pytest.mark.parametrize("moment", ["connecting", "asking", "in the middle of an answer", "committing"])
def test_silence_ends_in_bounded_time(sessions, proxy, moment):
    """
    A server that takes a connection or a statement and says nothing is given up, and the next connection is a new one.
    """
    if moment == "in the middle of an answer":
        proxy.when_asked(STALL, "generate_series")
        statement = "SELECT count(*) FROM generate_series(1, 9)"
    else:
        statement = "SELECT 1"
    if moment == "committing":
        proxy.when_committing(STALL, "SELECT 1")
    if moment == "asking":
        ask(sessions)
    if moment in {"connecting", "asking"}:
        proxy.stall()
    with pytest.raises(DatabaseUnavailableError):
        ask(sessions, statement)
    proxy.resume()

    assert 1 == ask(sessions)


def test_slow_answers_are_waited_for(sessions, proxy):
    """
    A network that is merely slow is no trouble.
    """
    proxy.delay(0.1)

    assert 1 == ask(sessions)


def test_statement_without_end_is_ended_by_the_server(sessions):
    """
    A statement that takes too long is ended at the server too, so that it keeps no locks.
    """
    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        ask(sessions, "SELECT pg_sleep(60)")


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("40001", DatabaseBusyError),  # serialization failure
        ("40P01", DatabaseBusyError),  # deadlock
        ("55P03", DatabaseBusyError),  # lock not available
        ("25006", DatabaseUnavailableError),  # read-only
        ("25P03", DatabaseUnavailableError),  # idle in a transaction for too long
        ("53100", DatabaseUnavailableError),  # disk full
        ("53200", DatabaseUnavailableError),  # out of memory
        ("53300", DatabaseUnavailableError),  # too many connections
        ("57P01", DatabaseUnavailableError),  # administrator's shutdown
        ("57P03", DatabaseUnavailableError),  # starting up
        ("58030", DatabaseUnavailableError),  # I/O error
        ("XX001", DatabaseRefusedError),  # data corrupted
        ("42501", DatabaseRefusedError),  # no privilege
    ],
)
def test_what_the_servers_errors_mean(sessions, sqlstate, kind):
    """
    Each error of the server's is busy (tried again at once), unavailable (waited for) or refused (said as it is).
    """
    with pytest.raises(DatabaseUnavailableError if kind is DatabaseBusyError else kind) as raised:
        ask(sessions, f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{sqlstate}'; END $$")

    assert kind is type(raised.value)
    assert "made up" in str(raised.value)


def test_read_only_server_is_left(sessions, postgresql_url):
    """
    No connection to a server that takes no writes is kept, so that the next one may lead to its heir.
    """
    name = make_url(postgresql_url).database
    engine = sessions.factory.kw["bind"]
    ask(sessions)
    execute(postgresql_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(DatabaseUnavailableError, match="takes no writes"), sessions.writing() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        session.execute(text("DELETE FROM leases"))
    with pytest.raises(DatabaseUnavailableError, match="takes no writes"):
        ping(engine)
    wait_for(lambda: connections_of_inbox(postgresql_url) == 0, "their end")  # the server needs a moment for it
    kept = connections_of_inbox(postgresql_url)
    execute(postgresql_url, f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    ping(engine)

    assert 0 == kept


def test_no_connection_left_for_the_role_is_waited_for(postgres_server, postgresql_url):
    """
    A role that has used up its connections is trouble that passes.
    """
    name = make_url(postgresql_url).database
    execute(postgresql_url, f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x' CONNECTION LIMIT 0")
    url = make_url(postgresql_url).set(username=name, password="x").render_as_string(hide_password=False)
    with connected(url, timeout=SECOND) as sessions, pytest.raises(DatabaseUnavailableError, match="too many"):
        ask(sessions)
    execute(postgresql_url, f'DROP ROLE "{name}"')


@pytest.mark.parametrize(
    "change",
    [{"password": "wrong"}, {"database": "nowhere"}, {"username": "nobody", "password": "x"}],
    ids=["password", "database", "user"],
)
def test_wrong_credentials_are_a_refusal(postgresql_url, change):
    """
    A wrong password, database or user is said as it is, with what to look at, and is no outage.
    """
    url = make_url(postgresql_url).set(**change).render_as_string(hide_password=False)
    with connected(url) as sessions, pytest.raises(DatabaseRefusedError, match="lets nobody in") as raised:
        ask(sessions)

    assert "DATABASE_URL" in raised.value.hint


def test_serializable_by_default_is_survived(house, database_kind, request):
    """
    Where every transaction is serializable, the ones that lose against others are repeated, and all is done.
    """
    if database_kind == "sqlite":
        pytest.skip("SQLite's transactions are serializable anyway")
    engine = house.sessions.factory.kw["bind"]
    name = engine.url.database
    execute(
        engine.url.render_as_string(hide_password=False),
        f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable',
    )
    engine.dispose()
    fill_batch("b1", 200, now=house.clock.now())
    threads = [threading.Thread(target=_work_off, args=(house,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with get_session() as session:
        states = session.execute(text("SELECT status, count(*) FROM file_extractions GROUP BY status")).all()
        level = session.execute(text("SHOW transaction_isolation")).scalar()

    assert ("serializable", 1) == (level, len(states))
    assert 200 == states[0][1]


def _work_off(house):
    from inbox.database import work
    from inbox.database.connection import retry_when_busy

    @retry_when_busy
    def page():
        with house.sessions.writing() as session:
            return work.claim_files("me", limit=20, now=house.clock.now(), life=LIFE, session=session)

    @retry_when_busy
    def record(files):
        with house.sessions.writing() as session:
            work.record_outcomes([house._outcome(file, {}) for file in files], session=session)

    while files := page().files:
        record(files)


def test_plain_connections_of_handlers_are_left_alone():
    """
    The bound is a matter of our own connections: a handler's psycopg2 waits as it always did.
    """
    from inbox.database import patience

    assert psycopg2.extensions.get_wait_callback() is None
    assert psycopg2.extensions.connection is not patience.BoundedConnection
