"""The HTTP handler next to an application that breaks off, dawdles, talks too much, or talks nonsense."""

import pytest
from applications import ask, running

from inbox.core.errors import ParseError, PermanentError, RetryableError, TimeoutError, classify_error
from inbox.handlers import http


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def application():
    with running() as application:
        yield application


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b'{"welcome": ', b"\xff\xfe welcome", b"[" * 100_000])
def test_answer_that_is_no_json_is_a_parse_error(application, body):
    """
    A success whose body is no JSON is a permanent error with the beginning of it.
    """
    application.answer(200, body)

    with pytest.raises(ParseError, match=r"“.*(welcome|\[\[\[)") as failed:
        ask(application.url)

    assert "RESULT_NOT_JSON" == failed.value.reason_code


def test_nobody_listening_is_transient(unused_port):
    """
    A refused connection is worth another attempt, and says what to check.
    """
    with pytest.raises(RetryableError, match="HANDLER_URL") as failed:
        ask(f"http://127.0.0.1:{unused_port}/files")

    assert ("RETRYABLE", "HANDLER_UNREACHABLE") == (classify_error(failed.value), failed.value.reason_code)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n{}",
    ],
    ids=["nothing", "other protocol", "half a status", "half a body", "half a chunk", "broken chunk"],
)
def test_answer_that_breaks_off_is_transient(application, said):
    """
    A connection that ends before the answer does is worth another attempt, and half an answer is no result.
    """
    application.answer_bytes(said)

    with pytest.raises(RetryableError) as failed:
        ask(application.url)

    assert ("RETRYABLE", "HANDLER_UNREACHABLE") == (classify_error(failed.value), failed.value.reason_code)


def test_answer_in_chunks_is_whole(application):
    """
    An answer of unknown length is read to its end.
    """
    application.answer_bytes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\n[1\r\n", b"3\r\n,2]\r\n", b"0\r\n\r\n"
    )

    assert [1, 2] == ask(application.url)


@pytest.mark.parametrize("said", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a":'])
def test_silence_is_a_timeout(application, said):
    """
    An application that does not answer in time, or falls silent in its answer, is a timeout.
    """
    application.speak = lambda out: (out.write(said), application.closing.wait(30))

    with pytest.raises(TimeoutError, match="FILE_PROCESSING_TIMEOUT"):
        ask(application.url, 0.05)


def test_trickle_past_the_deadline_is_a_timeout(application):
    """
    An answer that comes byte by byte without end is given up at the deadline, since no single byte is late.
    """

    def trickle(out):
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not application.closing.is_set():
            out.write(b" ")

    application.speak = trickle
    clock = Clock()

    with pytest.raises(TimeoutError):
        ask(application.url, 20.0, monotonic=clock)

    assert 22.0 == clock.now


def test_deadline_counts_from_the_request(application):
    """
    The time until the answer begins is part of the time that the whole answer may take.
    """
    clock = Clock()

    def late(out):
        clock.now += 100
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    application.speak = late

    with pytest.raises(TimeoutError):
        ask(application.url, 20.0, monotonic=clock)


@pytest.mark.parametrize("status", [200, 500])
def test_answer_has_a_largest_size(application, monkeypatch, status):
    """
    An answer without end is not read to its end, whatever its status.
    """
    monkeypatch.setattr(http, "MAX_RESPONSE_BYTES", 1000)
    application.answer(status, b'"' + b"x" * 998 + b'"')
    kept = ask(application.url) if status == 200 else None
    application.answer(status, b'"' + b"x" * 999 + b'"')

    with pytest.raises(PermanentError) as failed:
        ask(application.url)

    assert kept in {None, "x" * 998}
    assert "RESULT_TOO_LARGE" == failed.value.reason_code
