"""A database that lets nobody in: at the start that ends the service with a clear word, later it is waited for."""

import pytest
from outages import execute, troubles, wait_until_ready
from processes import Storage, wait_for
from sqlalchemy import make_url

pytestmark = pytest.mark.slow


def as_role(url, name, password):
    return make_url(url).set(username=name, password=password).render_as_string(hide_password=False)


@pytest.fixture
def role(postgresql_url):
    """A role of its own that owns the database's tables."""
    name = make_url(postgresql_url).database
    execute(postgresql_url, f"CREATE ROLE \"{name}\" LOGIN SUPERUSER PASSWORD 'first'")
    yield name
    execute(postgresql_url, f'REASSIGN OWNED BY "{name}" TO postgres')
    execute(postgresql_url, f'DROP OWNED BY "{name}"')
    execute(postgresql_url, f'DROP ROLE "{name}"')


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"database": "nowhere"}], ids=["password", "database"])
def test_wrong_credentials_end_the_start(tmp_path, postgresql_url, change):
    """
    Started with a wrong password or database, the service ends at once with 2 and one line that says so, and no secret.
    """
    url = make_url(postgresql_url).set(**change).render_as_string(hide_password=False)
    done = Storage(tmp_path / "shared", url).run("run")

    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "the database lets nobody in" in done.stderr
    assert make_url(url).password not in done.stderr + done.stdout


def test_password_that_changes_is_waited_for(tmp_path, behind_proxy, postgresql_url, role, unused_port):
    """
    A password changed under a running service is told as what it is, and with the right one back the work goes on.
    """
    proxy, url = behind_proxy
    shared = Storage(
        tmp_path / "shared", as_role(url, role, "first"), HANDLERS="handlers_for_processes", DATABASE_TIMEOUT=1
    )
    with shared.service(HTTP_PORT=unused_port) as service:
        wait_until_ready(unused_port)
        execute(postgresql_url, f"ALTER ROLE \"{role}\" PASSWORD 'second'")
        proxy.reset()
        wait_for(lambda: [line for line in service.events("TroubleBegan") if "lets nobody in" in line["reason"]])
        shared.drop("a.zip", ["ok.txt"])
        execute(postgresql_url, f"ALTER ROLE \"{role}\" PASSWORD 'first'")
        receipt = shared.wait_for_receipt("a.zip")
        wait_until_ready(unused_port)
        told = troubles(service)
        status = service.terminate()

    assert ("completed", 0) == (receipt["state"], status)
    assert [] == service.events("WorkerDied")
    assert ("TroubleOver", "service") == told[-1]
    assert len(told) <= 3  # the loss of the connections, unless the first leg met the refusal; the refusal; the end
