"""
The errors of inbox, and the one place that decides what any exception means.

Two families: transient errors are tried again, permanent ones are final at once. A surprise, that is an exception
nobody classified, is `UNKNOWN` and final: retrying a bug hides it, and an operator can always say `inbox retry`.
"""

import errno
import math
import sqlite3
from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar, Final


class ErrorType(StrEnum):
    """The seven words that `error_type` may hold."""

    UNKNOWN = "UNKNOWN"
    RETRYABLE = "RETRYABLE"
    PERMANENT = "PERMANENT"
    TIMEOUT = "TIMEOUT"
    RATE_LIMIT = "RATE_LIMIT"
    PARSE_ERROR = "PARSE_ERROR"
    LLM_ERROR = "LLM_ERROR"


RETRYABLE_TYPES: Final = frozenset(
    {ErrorType.RETRYABLE, ErrorType.TIMEOUT, ErrorType.RATE_LIMIT, ErrorType.LLM_ERROR},
)


class WorkerError(Exception):
    """
    Something went wrong: `message` says what, `subject` to what, `hint` what to do about it.

    `reason_code` is a short upper-case word for programs; it defaults to the error type.
    """

    error_type: ClassVar[str] = ErrorType.UNKNOWN

    def __init__(self, message: str = "", *, subject: str = "", hint: str = "", reason_code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint
        self.reason_code = reason_code or str(self.error_type)

    def __str__(self) -> str:
        return format_message(self.message or type(self).__name__, subject=self.subject, hint=self.hint)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(kind: type[WorkerError], message: str, state: dict[str, object]) -> WorkerError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error.__dict__.update(state)
    return error


class RetryableError(WorkerError):
    """A transient failure: the same attempt may succeed later. `retry_after` (seconds) wins over the schedule."""

    error_type = ErrorType.RETRYABLE

    def __init__(
        self,
        message: str = "",
        *,
        subject: str = "",
        hint: str = "",
        reason_code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, subject=subject, hint=hint, reason_code=reason_code)
        self.retry_after = retry_after


class PermanentError(WorkerError):
    """A failure that another attempt cannot mend."""

    error_type = ErrorType.PERMANENT


class TimeoutError(RetryableError):  # noqa: A001 - the name is part of the product's contract
    """Something took longer than it was given."""

    error_type = ErrorType.TIMEOUT


class RateLimitError(RetryableError):
    """A server asked for patience."""

    error_type = ErrorType.RATE_LIMIT


class ParseError(PermanentError):
    """The content is not what it claims to be."""

    error_type = ErrorType.PARSE_ERROR


class LLMError(RetryableError):
    """A language model's service failed or answered nonsense."""

    error_type = ErrorType.LLM_ERROR


class ConfigurationError(PermanentError):
    """The settings cannot work as they are. `problems` names every one of them, each with its mend."""

    def __init__(self, message: str = "", *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint, reason_code="CONFIGURATION")
        self.problems = problems


class DatabaseUnavailableError(RetryableError):
    """The database did not answer; it may later."""


class DatabaseBusyError(DatabaseUnavailableError):
    """The transaction lost against another one; the same one may win the next time."""


class DatabaseRefusedError(PermanentError):
    """The database answered, and will not do this: wrong credentials, missing schema, broken file."""


class StorageError(RetryableError):
    """The volume is full, read-only, gone or failing; the work waits."""

    is_for_all: ClassVar[bool] = True
    """Whether all the work waits; else the rest goes on meanwhile at its usual pace."""


class UnsafePathError(PermanentError):
    """A path would leave the storage base."""


class ArchiveRefusedError(PermanentError):
    """
    The archive is at fault and goes to quarantine; `reason_code` says why.

    `damaged` marks faults that a copy still under way would also show (a CRC that does not match yet): a young or
    changing drop with such a fault is not settled rather than broken.
    """

    def __init__(
        self, reason_code: str, message: str, *, subject: str = "", hint: str = "", damaged: bool = False
    ) -> None:
        super().__init__(message, subject=subject, hint=hint, reason_code=reason_code)
        self.damaged = damaged


class NotSettledError(RetryableError):
    """The drop is still being written, or changed under our hands."""


class LeaseLostError(RetryableError):
    """Another worker has taken this work over; whatever this one found out no longer counts."""


def format_message(what: str, *, subject: str = "", hint: str = "") -> str:
    """Return what happened, to what, and what to do, as one line."""
    line = f"{what}: {subject}" if subject else what
    return f"{line} ({hint})" if hint else line


def describe_error(error: BaseException, *, limit: int = 2000) -> str:
    """Return the message of any exception for a row, a log line or a receipt: one line, at most `limit` characters."""
    text = str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}".rstrip(": ")
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def retry_after_seconds(error: BaseException) -> float | None:
    """Return how long the other side asked to wait, in seconds, or None when it did not say."""
    value = getattr(error, "retry_after", None)
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else None


def classify_error(error: BaseException) -> str:
    """
    Return the one of the seven error types that describes any exception.

    Judged by type, error number and HTTP status, never by the prose of a message. An exception that says nothing by
    itself is judged by its explicit cause (`raise … from cause`, or the exception that `urllib` keeps as `reason`),
    a group by what all exceptions in it have in common.
    """
    for link in _chain(error):
        found = _classify_one(link)
        if found is not ErrorType.UNKNOWN:
            return str(found)
    return str(ErrorType.UNKNOWN)


def is_retryable(error: BaseException) -> bool:
    return classify_error(error) in RETRYABLE_TYPES


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or _reason_of(link)


def _reason_of(error: BaseException) -> BaseException | None:
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, BaseException) else None


def _classify_one(error: BaseException) -> ErrorType:
    if isinstance(error, WorkerError):
        return ErrorType(error.error_type)
    if isinstance(error, BaseExceptionGroup):
        return _in_common({ErrorType(classify_error(one)) for one in error.exceptions})
    for judge in (_by_http_status, _by_sqlstate, _by_sqlite_code, _by_name, _by_errno):
        found = judge(error)
        if found is not None:
            return found
    return ErrorType.UNKNOWN


def _in_common(types: set[ErrorType]) -> ErrorType:
    if len(types) == 1:
        return types.pop()
    return ErrorType.RETRYABLE if types <= RETRYABLE_TYPES else ErrorType.UNKNOWN


def classify_http_status(status: int) -> ErrorType | None:
    """Return what an HTTP status means for the attempt, or None for success and redirects (RFC 9110, RFC 6585)."""
    if status in {408, 504}:
        return ErrorType.TIMEOUT
    if status == 429:  # noqa: PLR2004 - RFC 6585, Too Many Requests
        return ErrorType.RATE_LIMIT
    if status >= 500:  # noqa: PLR2004 - server errors
        return ErrorType.RETRYABLE
    if status >= 400:  # noqa: PLR2004 - client errors
        return ErrorType.PERMANENT
    return None


def _by_http_status(error: BaseException) -> ErrorType | None:
    holders = (getattr(error, "response", None), error)
    for holder in holders:
        for name in ("status_code", "status"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and not isinstance(status, bool):
                return classify_http_status(status)
    return None


_SQLSTATE_CLASSES: Final = {
    "08": ErrorType.RETRYABLE,  # connection exception
    "40": ErrorType.RETRYABLE,  # serialization failure, deadlock
    "53": ErrorType.RETRYABLE,  # insufficient resources
    "55": ErrorType.RETRYABLE,  # object in use, lock not available
    "57": ErrorType.RETRYABLE,  # operator intervention: shutdown, crash, cannot connect now
    "58": ErrorType.RETRYABLE,  # system error, I/O
}
_SQLSTATES: Final = {
    "57014": ErrorType.TIMEOUT,  # statement timeout
    "25P03": ErrorType.TIMEOUT,  # idle in a transaction for too long; the session has ended
    "25P04": ErrorType.TIMEOUT,  # a transaction for too long; likewise
    "25006": ErrorType.RETRYABLE,  # read-only: a standby, or a server about to be one
}


def _by_sqlstate(error: BaseException) -> ErrorType | None:
    """Judge a driver's error, or SQLAlchemy's wrapper of one, by its SQLSTATE (PostgreSQL, appendix A)."""
    origin = getattr(error, "orig", None) or error
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    if not isinstance(state, str):
        return None
    return _SQLSTATES.get(state) or _SQLSTATE_CLASSES.get(state[:2], ErrorType.PERMANENT)


_SQLITE_PERMANENT: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # a wrong statement, a missing table
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_TOOBIG,
    },
)


def _by_sqlite_code(error: BaseException) -> ErrorType | None:
    """Judge a SQLite error by its primary result code (sqlite.org/rescode.html)."""
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return None
    return ErrorType.PERMANENT if code & 0xFF in _SQLITE_PERMANENT else ErrorType.RETRYABLE


# Looked up along the exception's bases, most derived first; no library is imported for it.
_NAMES: Final = {
    "json.decoder.JSONDecodeError": ErrorType.PARSE_ERROR,
    "builtins.UnicodeError": ErrorType.PARSE_ERROR,
    "asyncio.exceptions.IncompleteReadError": ErrorType.RETRYABLE,  # an EOFError, of a connection
    "builtins.EOFError": ErrorType.PARSE_ERROR,
    "zipfile.BadZipFile": ErrorType.PARSE_ERROR,
    "zipfile._path.BadZipFile": ErrorType.PARSE_ERROR,
    "zlib.error": ErrorType.PARSE_ERROR,
    "gzip.BadGzipFile": ErrorType.PARSE_ERROR,
    "_lzma.LZMAError": ErrorType.PARSE_ERROR,
    "tarfile.TarError": ErrorType.PARSE_ERROR,
    "binascii.Error": ErrorType.PARSE_ERROR,
    "configparser.Error": ErrorType.PARSE_ERROR,
    "_csv.Error": ErrorType.PARSE_ERROR,
    "xml.etree.ElementTree.ParseError": ErrorType.PARSE_ERROR,
    "xml.parsers.expat.ExpatError": ErrorType.PARSE_ERROR,
    "tomllib.TOMLDecodeError": ErrorType.PARSE_ERROR,
    "email.errors.MessageError": ErrorType.PARSE_ERROR,
    "builtins.TimeoutError": ErrorType.TIMEOUT,
    "subprocess.TimeoutExpired": ErrorType.TIMEOUT,
    "builtins.ConnectionError": ErrorType.RETRYABLE,
    "builtins.MemoryError": ErrorType.RETRYABLE,
    "builtins.NotImplementedError": ErrorType.PERMANENT,
    "concurrent.futures._base.BrokenExecutor": ErrorType.RETRYABLE,
    "socket.gaierror": ErrorType.RETRYABLE,
    "http.client.HTTPException": ErrorType.RETRYABLE,
    "sqlite3.OperationalError": ErrorType.RETRYABLE,
    "sqlite3.DatabaseError": ErrorType.PERMANENT,
    "sqlalchemy.exc.TimeoutError": ErrorType.TIMEOUT,
    "sqlalchemy.exc.OperationalError": ErrorType.RETRYABLE,
    "sqlalchemy.exc.InterfaceError": ErrorType.RETRYABLE,
    "sqlalchemy.exc.DisconnectionError": ErrorType.RETRYABLE,
    "sqlalchemy.exc.SQLAlchemyError": ErrorType.PERMANENT,
    "psycopg2.OperationalError": ErrorType.RETRYABLE,
    "psycopg2.InterfaceError": ErrorType.RETRYABLE,
    "psycopg2.Error": ErrorType.PERMANENT,
    "httpx.TimeoutException": ErrorType.TIMEOUT,
    "httpx.TransportError": ErrorType.RETRYABLE,
    "requests.exceptions.Timeout": ErrorType.TIMEOUT,
    "requests.exceptions.ConnectionError": ErrorType.RETRYABLE,
    "requests.exceptions.RequestException": ErrorType.PERMANENT,
    "urllib3.exceptions.TimeoutError": ErrorType.TIMEOUT,
    "urllib3.exceptions.LocationParseError": ErrorType.PERMANENT,
    "urllib3.exceptions.HTTPError": ErrorType.RETRYABLE,
    "aiohttp.client_exceptions.ServerTimeoutError": ErrorType.TIMEOUT,
    "aiohttp.client_exceptions.ClientConnectionError": ErrorType.RETRYABLE,
    "openai.RateLimitError": ErrorType.RATE_LIMIT,
    "openai.APITimeoutError": ErrorType.TIMEOUT,
    "openai.OpenAIError": ErrorType.LLM_ERROR,
    "anthropic.RateLimitError": ErrorType.RATE_LIMIT,
    "anthropic.APITimeoutError": ErrorType.TIMEOUT,
    "anthropic.AnthropicError": ErrorType.LLM_ERROR,
    "kreuzberg.exceptions.ParsingError": ErrorType.PARSE_ERROR,
    "kreuzberg.exceptions.ValidationError": ErrorType.PARSE_ERROR,
    "kreuzberg.exceptions.ExtractionTimeoutError": ErrorType.TIMEOUT,
    "kreuzberg.exceptions.KreuzbergError": ErrorType.PERMANENT,
    "pypdf.errors.PyPdfError": ErrorType.PARSE_ERROR,
    "openpyxl.utils.exceptions.InvalidFileException": ErrorType.PARSE_ERROR,
    "docx.opc.exceptions.PackageNotFoundError": ErrorType.PARSE_ERROR,
    "lxml.etree.LxmlError": ErrorType.PARSE_ERROR,
    "pydantic_core._pydantic_core.ValidationError": ErrorType.PARSE_ERROR,
}


def _by_name(error: BaseException) -> ErrorType | None:
    for base in type(error).__mro__:
        found = _NAMES.get(f"{base.__module__}.{base.__qualname__}")
        if found is None and "." in base.__module__:  # a client's public name, wherever its class is defined
            found = _NAMES.get(f"{base.__module__.partition('.')[0]}.{base.__qualname__}")
        if found is not None:
            return found
    return None


_TRANSIENT_ERRNOS: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENODEV,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.EROFS,
        errno.ESTALE,
        errno.ETXTBSY,
    },
)


def _by_errno(error: BaseException) -> ErrorType | None:
    if not isinstance(error, OSError):
        return None
    if error.errno is None:
        return ErrorType.UNKNOWN
    if error.errno == errno.ETIMEDOUT:
        return ErrorType.TIMEOUT
    return ErrorType.RETRYABLE if error.errno in _TRANSIENT_ERRNOS else ErrorType.PERMANENT
