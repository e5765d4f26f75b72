"""The HTTP handler: what it tells an application, and what the application's answers mean."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from applications import FILE, ask, running
from hypothesis import given
from hypothesis import strategies as st

from inbox.core.errors import (
    ConfigurationError,
    PermanentError,
    RateLimitError,
    RetryableError,
    TimeoutError,
    classify_error,
)
from inbox.handlers import http
from inbox.handlers.base import File
from inbox.handlers.http import describe_file, http_handler, parse_retry_after

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def application():
    with running() as application:
        yield application


def test_file_is_announced(application):
    """
    The application is told everything about the file, its place on the shared volume, and the idempotency key.
    """
    application.answer(200, b'{"pages": 3}')
    result = ask(application.url)
    path, headers, told = application.requests[0]

    assert ({"pages": 3}, "/files") == (result, path)
    assert ("d1", "application/json") == (headers["idempotency-key"], headers["content-type"])
    assert headers["user-agent"].startswith("inbox/")
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


def test_name_in_no_alphabet_is_told_as_it_is(application):
    """
    A name outside ASCII, even one that is no valid text, arrives as it is on the volume.
    """
    strange = File(Path("/shared/x/\udcffß"), "\udcffß", "\udcffß", "text", 3, "0" * 64, "d1", "b1", "r1", 1)
    ask(application.url, file=strange)

    assert ("x/\udcffß", "\udcffß") == (application.requests[0][2]["file_path"], application.requests[0][2]["name"])


def test_file_outside_the_volume_has_no_place_on_it():
    """
    What does not lie below the storage base is told by its absolute path alone.
    """
    told = describe_file(FILE, Path("/elsewhere"))

    assert ("/shared/extracted/b1/docs/a.txt", None) == (told["path"], told["file_path"])


def test_connection_is_used_again(application):
    """
    Several files go over one connection, also after an answer that was an error.
    """
    ask(application.url)
    application.answer(500, b"sorry")
    with pytest.raises(RetryableError):
        ask(application.url)
    application.answer(200, b"[]")
    ask(application.url)

    assert (3, 1) == (len(application.requests), len(application.connections))


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b""), (200, b"  "), (201, b"null")])
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
        (401, PermanentError, "PERMANENT"),
        (404, PermanentError, "PERMANENT"),
        (409, PermanentError, "PERMANENT"),
        (422, PermanentError, "PERMANENT"),
        (408, TimeoutError, "TIMEOUT"),
        (504, TimeoutError, "TIMEOUT"),
        (429, RateLimitError, "RATE_LIMIT"),
        (500, RetryableError, "RETRYABLE"),
        (502, RetryableError, "RETRYABLE"),
        (503, RetryableError, "RETRYABLE"),
        (599, RetryableError, "RETRYABLE"),
    ],
)
def test_status_becomes_an_error(application, status, kind, word):
    """
    Each class of status has its error, with the status as code and the beginning of the answer in the message.
    """
    application.answer(status, b"<h1>sorry\x1b[2J</h1>\n" + b"x" * 5000)

    with pytest.raises(kind) as failed:
        ask(application.url)

    assert (word, f"HTTP_{status}") == (classify_error(failed.value), failed.value.reason_code)
    assert f"answered {status} “<h1>sorry [2J</h1> xxx" in str(failed.value)
    assert str(failed.value).isprintable()
    assert len(str(failed.value)) < 400


@pytest.mark.parametrize("status", [408, 429, 500, 503, 504])
def test_server_says_when_to_come_back(application, status):
    """
    A Retry-After is taken over from whatever is worth another attempt; a broken one is not.
    """
    told = []
    for value in ("7", "soon", "Mon, 01 Jan 2024 00:00:00 +99999999999999999"):
        application.answer(status, Retry_After=value)
        with pytest.raises(RetryableError) as failed:
            ask(application.url)
        told.append(failed.value.retry_after)

    assert [7.0, None, None] == told


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("999999999", 86_400.0),
        ("9" * 5000, 86_400.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 00:01:00 -0000", 60.0),
        ("Thu, 01 Jan 2026 01:01:00 +0100", 60.0),
        ("Thu, 01 Jan 2025 00:01:00 GMT", 0.0),
        ("Fri, 01 Jan 2027 00:01:00 GMT", 86_400.0),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("\u0667", None),
        ("Thu, 01 Jan 2026 00:00:99999999999999999999 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_in_both_of_its_forms(value, seconds):
    """
    The header is a number of seconds or a date, and at most a day; anything else says nothing.
    """
    assert seconds == parse_retry_after(value, NOW)


@given(st.text(max_size=60) | st.text(st.sampled_from("0123456789 ,:+-JanMoGMT"), max_size=40))
def test_no_retry_after_is_too_strange(value):
    """
    Whatever a server writes there is a wait of at most a day, or none.
    """
    seconds = parse_retry_after(value, NOW)

    assert seconds is None or 0 <= seconds <= http.MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(application, status):
    """
    A redirect is refused, and nothing is sent to where it points.
    """
    application.answer(status, Location=application.url)

    with pytest.raises(PermanentError, match="redirects are not followed"):
        ask(application.url)

    assert 1 == len(application.requests)


@pytest.mark.parametrize(
    ("written", "header"),
    [("me:hunter%402", "Basic bWU6aHVudGVyQDI="), ("me:hunter%E2%82%AC", "Basic bWU6aHVudGVy4oKs"), ("hunter", None)],
)
def test_credentials_are_sent_and_never_shown(application, unused_port, written, header):
    """
    A password in the URL becomes a header, in any alphabet, and is in no message and no repr, nor is the query.
    """
    url = application.url.replace("http://", f"http://{written}@") + "?key=hunter#hunter"
    application.answer(500)
    shown = [repr(http_handler(url, 1.0, Path("/")))]
    for tried in (url, url.replace(str(application.server.server_port), str(unused_port))):
        with pytest.raises(RetryableError) as failed:
            ask(tried)
        shown.append(f"{failed.value} {failed.value!r}")

    path, headers, _ = application.requests[0]
    assert ("/files?key=hunter", header or "Basic aHVudGVy") == (path, headers["authorization"])
    assert "hunter" not in " ".join(shown)
    assert "127.0.0.1" in shown[1]


@pytest.mark.parametrize(
    "url",
    ["ftp://me:hunter@x/y", "http://", "no url", "localhost:9000/files", "http://[::1", "http://me:hunter@x:99999/"],
)
def test_bad_url_is_a_configuration_error(url):
    """
    What is no HTTP URL is told at the start, without the password that may be in it.
    """
    with pytest.raises(ConfigurationError, match="HANDLER_URL") as refused:
        http_handler(url, 1.0, Path("/shared"))

    assert "hunter" not in str(refused.value)
