"""The whole service beside an application that goes down in the middle of a batch, and comes back."""

import json
import socket
import threading
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from databases import connected
from processes import Storage, wait_for

from inbox.database.operations import get_batch_files

pytestmark = pytest.mark.slow
FILES = 300


class Application:
    """An HTTP application that can be taken down: nobody listens then, or it answers 503."""

    def __init__(self, port):
        self.port = port
        self.answered = []
        self.refused = []
        self.status = 200
        self.after = None
        self._lock = threading.Lock()
        self._server = None

    def listen(self):
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(application.answer(asked))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, asked):
        """Go down for good at the hundredth file, whoever asks."""
        with self._lock:
            if len(self.answered) == 100 and self.after is not None:
                self.status, self.after = self.after, None
            (self.answered if self.status == 200 else self.refused).append((asked["doc_id"], asked["attempt"]))
            return self.status

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def application(unused_port):
    made = Application(unused_port)
    made.listen()
    yield made
    made.stop()


def ask(port):
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        return json.loads(connection.getresponse().read())["checks"]


@pytest.fixture
def probe_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(("how", "workers"), [("answers 503", 1), ("refuses connections", 4)])
def test_batch_outlives_an_outage(tmp_path, database_url, application, probe_port, how, workers):
    """
    All files succeed, none uses up its attempts, the application is asked little meanwhile, and it is said once.
    """
    shared = Storage(
        tmp_path / "shared",
        database_url,
        HANDLER_URL=f"http://127.0.0.1:{application.port}/files",
        HTTP_PORT=probe_port,
        WORKER_PROCESSES=workers,
    )
    application.after = 503
    with shared.service() as service:
        shared.drop("batch.zip", [f"{number}.txt" for number in range(FILES)])
        wait_for(lambda: application.refused, "the outage")
        if how == "refuses connections":
            application.stop()
        wait_for(lambda: service.events("BreakerOpened"), "the pause")
        during, so_far = ask(probe_port)["handlers"], len(application.refused)
        if how == "answers 503":
            wait_for(lambda: len(application.refused) > so_far, "another request")
        asked_while_down = len(application.refused)
        application.status = 200
        if how == "refuses connections":
            application.listen()
        receipt = shared.wait_for_receipt("batch.zip")
        wait_for(lambda: service.events("BreakerClosed"), "the end of the pause")
        after = ask(probe_port)["handlers"]
        status = service.terminate()
    with connected(database_url):
        files = get_batch_files(receipt["batch_id"])

    assert ("completed", FILES, 0, 0) == (receipt["state"], receipt["succeeded"], receipt["failed"], status)
    assert FILES == len({doc_id for doc_id, _ in application.answered}) == len(application.answered)
    assert sum(file.retry_count for file in files) <= 40  # of 600 that could have been repeated
    assert asked_while_down <= 60
    assert during.startswith("http fails: RETRYABLE: The handler ")
    assert "ok" == after
    assert 1 <= len(service.events("BreakerOpened")) <= 2
    assert 1 == len(service.events("BreakerClosed"))
