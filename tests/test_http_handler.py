"""The HTTP handler, against a real server on loopback."""

import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inbox.core.errors import (
    ConfigurationError,
    ParseError,
    PermanentError,
    RateLimitError,
    RetryableError,
    TimeoutError,
    classify_error,
)
from inbox.handlers import http
from inbox.handlers.base import File
from inbox.handlers.http import HttpHandler, http_handler, parse_retry_after

FILE = File(Path("/shared/extracted/b1/docs/a.txt"), "a.txt", "docs/a.txt", "text", 3, "0" * 64, "d1", "b1", "r1", 2)


class Application:
    """Answers what the test says and remembers what it was asked."""

    def __init__(self):
        self.status, self.body, self.headers = 200, b"{}", {}
        self.requests = []
        self.hold = threading.Event()
        self.hold.set()
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                application.requests.append(
                    (self.path, {name.lower(): value for name, value in self.headers.items()}, json.loads(body))
                )
                application.hold.wait(30)
                self.send_response(application.status)
                for name, value in application.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(application.body)))
                self.end_headers()
                self.wfile.write(application.body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/files"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, status, body=b"", **headers):
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def application():
    running = Application()
    yield running
    running.hold.set()
    running.server.shutdown()
    running.server.server_close()


def ask(url, seconds=5.0, **options):
    spec = http_handler(url, seconds, Path("/shared"))
    if options:
        spec = type(spec)("http", HttpHandler(http.parse_url(url), seconds, Path("/shared"), **options))
    return spec.function(FILE)


def test_file_is_announced(application):
    """
    The application is told everything about the file, its place on the shared volume, and the idempotency key.
    """
    application.answer(200, b'{"pages": 3}')
    result = ask(application.url)
    path, headers, told = application.requests[0]

    assert ({"pages": 3}, "/files") == (result, path)
    assert ("d1", "application/json") == (headers["idempotency-key"], headers["content-type"])
    assert {
        "path": "/shared/extracted/b1/docs/a.txt",
        "file_path": "extracted/b1/docs/a.txt",
        "name": "a.txt",
        "member_path": "docs/a.txt",
        "file_type": "text",
        "size_bytes": 3,
        "sha256": "0" * 64,
        "doc_id": "d1",
        "batch_id": "b1",
        "run_id": "r1",
        "attempt": 2,
    } == told


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b"  "), (201, b"null")])
def test_empty_answer_is_no_result(application, status, body):
    """
    Success without content is a success without a result.
    """
    application.answer(status, body)

    assert ask(application.url) is None


@pytest.mark.parametrize(
    ("status", "kind", "word"),
    [
        (400, PermanentError, "PERMANENT"),
        (404, PermanentError, "PERMANENT"),
        (422, PermanentError, "PERMANENT"),
        (408, TimeoutError, "TIMEOUT"),
        (504, TimeoutError, "TIMEOUT"),
        (429, RateLimitError, "RATE_LIMIT"),
        (500, RetryableError, "RETRYABLE"),
        (502, RetryableError, "RETRYABLE"),
        (503, RetryableError, "RETRYABLE"),
    ],
)
def test_status_becomes_an_error(application, status, kind, word):
    """
    Each class of status has its error, with the status as code and the beginning of the answer in the message.
    """
    application.answer(status, b"<h1>sorry\x1b[2J</h1>")

    with pytest.raises(kind) as failed:
        ask(application.url)

    assert (word, f"HTTP_{status}") == (classify_error(failed.value), failed.value.reason_code)
    assert "sorry" in str(failed.value)
    assert str(failed.value).isprintable()


def test_server_says_when_to_come_back(application):
    """
    A Retry-After of a busy server is taken over.
    """
    for status in (429, 503):
        application.answer(status, Retry_After="7")
        with pytest.raises(RetryableError) as failed:
            ask(application.url)
        assert 7.0 == failed.value.retry_after


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("999999999", 86_400.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2025 00:01:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_in_both_of_its_forms(value, seconds):
    """
    The header is a number of seconds or a date, and at most a day.
    """
    assert seconds == parse_retry_after(value, NOW)
    assert timedelta(days=1).total_seconds() == http.MAX_RETRY_AFTER_SECONDS


def test_answer_that_is_no_json_is_a_parse_error(application):
    """
    A success whose body is no JSON is a permanent error with the beginning of it.
    """
    application.answer(200, b"<html>welcome</html>")

    with pytest.raises(ParseError, match="welcome"):
        ask(application.url)


def test_redirect_is_not_followed(application):
    """
    A redirect is refused, and nothing is sent to where it points.
    """
    application.answer(307, Location=application.url)

    with pytest.raises(PermanentError, match="redirects are not followed"):
        ask(application.url)

    assert 1 == len(application.requests)


def test_nobody_listening_is_transient():
    """
    A refused connection is worth another attempt, and says what to check.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/files"

        with pytest.raises(RetryableError, match="HANDLER_URL") as failed:
            ask(url)

    assert ("RETRYABLE", "HANDLER_UNREACHABLE") == (classify_error(failed.value), failed.value.reason_code)


def test_silence_is_a_timeout(application):
    """
    An application that does not answer in time is a timeout.
    """
    application.hold.clear()

    with pytest.raises(TimeoutError, match="FILE_PROCESSING_TIMEOUT"):
        ask(application.url, 0.05)


def test_trickle_past_the_deadline_is_a_timeout(application):
    """
    An answer that comes in slowly ends at the deadline, not at each piece.
    """
    application.answer(200, b"[" + b"1," * 200_000 + b"1]")
    ticks = iter(range(0, 10_000, 3))

    with pytest.raises(TimeoutError):
        ask(application.url, 5.0, monotonic=lambda: float(next(ticks)))


def test_answer_has_a_largest_size(application, monkeypatch):
    """
    An answer without end is not read to its end.
    """
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 1000)
    application.answer(200, b'"' + b"x" * 5000 + b'"')

    with pytest.raises(PermanentError) as failed:
        ask(application.url)

    assert "RESULT_TOO_LARGE" == failed.value.reason_code


def test_connection_is_used_again(application):
    """
    Several files go over one connection.
    """
    for _ in range(3):
        ask(application.url)

    assert 3 == len(application.requests)


def test_credentials_are_sent_and_never_shown(application):
    """
    A password in the URL becomes a header, and is in no message and no repr.
    """
    url = application.url.replace("http://", "http://me:hunter%402@") + "?key=hunter"
    application.answer(500)

    with pytest.raises(RetryableError) as failed:
        ask(url)

    path, headers, _ = application.requests[0]
    assert ("/files?key=hunter", "Basic bWU6aHVudGVyQDI=") == (path, headers["authorization"])
    assert "hunter" not in f"{failed.value} {http_handler(url, 1.0, Path('/'))!r}"


@pytest.mark.parametrize("url", ["ftp://x/y", "http://", "no url", "http://[::1"])
def test_bad_url_is_a_configuration_error(url):
    """
    What is no HTTP URL is told at the start.
    """
    with pytest.raises(ConfigurationError, match="HANDLER_URL"):
        http_handler(url, 1.0, Path("/shared"))
