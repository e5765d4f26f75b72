"""The HTTP handler: each file is announced to an application with one POST, and the answer is the result."""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, NewConnectionError
from urllib3.exceptions import TimeoutError as UrllibTimeoutError
from urllib3.util import Timeout, Url, parse_url

from inbox.core.errors import (
    ConfigurationError,
    ErrorType,
    ParseError,
    PermanentError,
    RateLimitError,
    RetryableError,
    TimeoutError,  # noqa: A004 - the name is part of the product's contract
    classify_http_status,
)
from inbox.core.retry import LONGEST_WAIT_SECONDS
from inbox.handlers.base import File, HandlerSpec
from inbox.handlers.versions import inbox_version

MAX_RESPONSE_BYTES: Final = 16 * 1024**2
MAX_CONNECT_SECONDS: Final = 10.0
MAX_RETRY_AFTER_SECONDS: Final = LONGEST_WAIT_SECONDS
EXCERPT_CHARS: Final = 200
_PIECE_BYTES: Final = 64 * 1024

_TRANSIENT: Final[dict[ErrorType, type[RetryableError]]] = {
    ErrorType.TIMEOUT: TimeoutError,
    ErrorType.RATE_LIMIT: RateLimitError,
    ErrorType.RETRYABLE: RetryableError,
}


def http_handler(url: str, timeout_seconds: float, storage_base: Path) -> HandlerSpec:
    """Return a handler for every file that asks the application at `url`. Raises ConfigurationError for a bad URL."""
    try:
        parsed = parse_url(url)
    except LocationValueError:
        parsed = Url()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigurationError("HANDLER_URL is not a URL", hint="write it as http://host:port/path")
    return HandlerSpec("http", HttpHandler(parsed, timeout_seconds, storage_base))


class HttpHandler:
    """
    POSTs what is known about a file as JSON and returns the JSON of the answer, or None for an empty one.

    One attempt is one request, without redirects; each carries the file's `doc_id` as `Idempotency-Key`. Statuses
    become errors by `classify_http_status`. No message shows the URL's credentials or its query.
    """

    def __init__(
        self, url: Url, timeout_seconds: float, storage_base: Path, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._target = url._replace(auth=None, fragment=None).url
        self._shown = url._replace(auth=None, fragment=None, query=None).url
        self._headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": f"inbox/{inbox_version()}",
            **(_basic_auth(url.auth) if url.auth else {}),
        }
        self._timeout_seconds = timeout_seconds
        self._storage_base = storage_base
        self._monotonic = monotonic

    def __repr__(self) -> str:
        return f"HttpHandler({self._shown})"

    def __call__(self, file: File) -> object:
        deadline = self._monotonic() + self._timeout_seconds
        try:
            response = self._post(file)
            try:
                body = self._read(response, deadline)
            finally:
                response.close()
                response.release_conn()
        except NewConnectionError as error:  # refused, or no such host; urllib3 calls it a timeout too
            raise self._unreachable(error) from error
        except UrllibTimeoutError as error:
            raise self._late() from error
        except HTTPError as error:
            raise self._unreachable(error) from error
        return self._judge(response, body)

    def _post(self, file: File) -> urllib3.BaseHTTPResponse:
        return _connections(os.getpid()).request(
            "POST",
            self._target,
            body=json.dumps(describe_file(file, self._storage_base)),
            headers={**self._headers, "Idempotency-Key": file.doc_id},
            timeout=Timeout(connect=min(MAX_CONNECT_SECONDS, self._timeout_seconds), read=self._timeout_seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        """Read what comes, never more than the limit and never past the deadline, however slowly it trickles."""
        body = bytearray()
        while piece := response.read1(_PIECE_BYTES):
            body += piece
            if len(body) > MAX_RESPONSE_BYTES:
                raise PermanentError(
                    f"The handler's answer is larger than {MAX_RESPONSE_BYTES} bytes",
                    subject=self._shown,
                    hint="answer with a summary and store the rest",
                    reason_code="RESULT_TOO_LARGE",
                )
            if self._monotonic() > deadline:
                raise self._late()
        return bytes(body)

    def _unreachable(self, error: HTTPError) -> RetryableError:
        return RetryableError(
            f"The handler cannot be reached, {type(error).__name__}",
            subject=self._shown,
            hint="check that the application runs and HANDLER_URL points to it",
            reason_code="HANDLER_UNREACHABLE",
        )

    def _late(self) -> TimeoutError:
        return TimeoutError(
            f"The handler did not answer within {self._timeout_seconds:g} s",
            subject=self._shown,
            hint="raise FILE_PROCESSING_TIMEOUT, or answer sooner",
        )

    def _judge(self, response: urllib3.BaseHTTPResponse, body: bytes) -> object:
        status = response.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return self._parse(body, status)
        message = f"The handler answered {status}" + (f" {excerpt}" if (excerpt := _excerpt(body)) else "")
        kind = _TRANSIENT.get(classify_http_status(status) or ErrorType.PERMANENT)
        if kind is not None:
            raise kind(
                message,
                subject=self._shown,
                reason_code=f"HTTP_{status}",
                retry_after=parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC)),
            )
        redirected = status < HTTPStatus.BAD_REQUEST
        hint = "redirects are not followed; set HANDLER_URL to the final address" if redirected else ""
        raise PermanentError(message, subject=self._shown, hint=hint, reason_code=f"HTTP_{status}")

    def _parse(self, body: bytes, status: int) -> object:
        if status == HTTPStatus.NO_CONTENT or not body.strip():
            return None
        try:
            result: object = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ParseError(
                f"The handler answered {status} with something other than JSON, {_excerpt(body)}",
                subject=self._shown,
                hint="answer with JSON, or with 204 and nothing",
                reason_code="RESULT_NOT_JSON",
            ) from error
        return result


def describe_file(file: File, storage_base: Path) -> dict[str, object]:
    """Return what the application is told: `path` as seen from here, `file_path` relative to the storage base."""
    below = file.path.is_relative_to(storage_base)
    return {
        "path": str(file.path),
        "file_path": str(file.path.relative_to(storage_base)) if below else None,
        "name": file.name,
        "member_path": file.member_path,
        "file_type": file.file_type,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "doc_id": file.doc_id,
        "batch_id": file.batch_id,
        "run_id": file.run_id,
        "attempt": file.attempt,
    }


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds a `Retry-After` header asks for (RFC 9110, 10.2.3), at most a day, or None."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        due = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter from numbers beyond those of any calendar
        return None
    seconds = (due.replace(tzinfo=due.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _basic_auth(credentials: str) -> dict[str, str]:
    """Return the header for the credentials of a URL, as UTF-8 (RFC 7617), since a password may hold any letter."""
    return {"Authorization": f"Basic {b64encode(unquote_to_bytes(credentials)).decode()}"}


@cache
def _connections(_pid: int) -> urllib3.PoolManager:
    """Return this process's connections; a forked worker must not speak on its parent's."""
    return urllib3.PoolManager(num_pools=2, maxsize=1)


def _excerpt(body: bytes) -> str:
    """Return the beginning of an answer as one printable line in quotes, or nothing."""
    text = body[: EXCERPT_CHARS * 8].decode("utf-8", "replace")
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return f"“{line[:EXCERPT_CHARS]}”" if line else ""
