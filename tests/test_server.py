"""The probes over HTTP."""

import json
import socket
from http.client import HTTPConnection

import pytest

from inbox.config import Config
from inbox.core.errors import ConfigurationError
from inbox.service.health import Health, Probes
from inbox.service.server import ProbeServer


@pytest.fixture
def server():
    checks = {"live": {"intake": None}, "ready": {"database": "does not answer", "volume": None}}
    running = ProbeServer("127.0.0.1", 0, live=lambda: Health(checks["live"]), ready=lambda: Health(checks["ready"]))
    running.start()
    yield running
    running.stop()


def ask(server, path):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_probes_tell_each_part_and_what_ails_it(server):
    """
    A probe answers 200 while every part is well, else 503, and names the parts.
    """
    live, ready = ask(server, "/livez"), ask(server, "/readyz")

    assert (200, {"status": "ok", "checks": {"intake": "ok"}}) == (live[0], json.loads(live[1]))
    assert (503, {"status": "unavailable", "checks": {"database": "does not answer", "volume": "ok"}}) == (
        ready[0],
        json.loads(ready[1]),
    )
    assert 404 == ask(server, "/elsewhere")[0]


def test_port_that_is_taken_is_explained(server):
    """
    A port that somebody else listens on is a mistake in the settings, told with its mend.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="HTTP_PORT") as refused:
            ProbeServer("127.0.0.1", taken.getsockname()[1], live=lambda: Health({}), ready=lambda: Health({})).start()

    assert "cannot listen" in refused.value.message


def test_name_that_is_no_host_is_explained():
    """
    A host that cannot be resolved is told in the same way.
    """
    with pytest.raises(ConfigurationError, match="cannot listen on no such host"):
        ProbeServer("no such host", 0, live=lambda: Health({}), ready=lambda: Health({}))


def test_two_that_start_at_once_do_not_share_a_port(unused_port):
    """
    A port is taken from the moment the server is made, not only when it is started.
    """
    first = ProbeServer("127.0.0.1", unused_port, live=lambda: Health({}), ready=lambda: Health({}))
    with pytest.raises(ConfigurationError):
        ProbeServer("127.0.0.1", unused_port, live=lambda: Health({}), ready=lambda: Health({}))
    first.start()
    first.stop()


def test_loopback_is_the_default():
    """
    Without a setting nobody else on the network is answered.
    """
    assert "127.0.0.1" == Config.model_fields["http_host"].default


class Ailing:
    def live(self):
        return Health({"intake": "its thread has ended"})

    def ready(self):
        return Health({"database": "does not answer"})


def test_process_without_a_service_lives_and_is_not_ready():
    """
    Before there is a service, and after it has ended, the process is alive and not ready; between, the service answers.
    """
    probes = Probes()
    before = probes.live().is_well, probes.ready().checks
    probes.service = Ailing()

    assert (True, {"service": "starting"}) == before
    assert (Ailing().live(), Ailing().ready()) == (probes.live(), probes.ready())
