"""
Log lines: one per event, for programs (JSON) or for people (text), each carrying the context it was written in.

Whatever is logged (a hostile file name, bytes, an object whose `str()` raises) ends as exactly one well-formed line;
passwords in URLs never reach it. Times are UTC in both formats, so that lines of several containers can be laid side
by side.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import date
from datetime import time as time_of_day
from enum import Enum
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, Protocol, TextIO, TypeAlias, cast

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from inbox.core.rotation import SharedRotatingFileHandler

Fields: TypeAlias = Mapping[str, object]

CORRELATION_ID_LENGTH: Final = 12
_MAX_DEPTH: Final = 8
_NUMBERS: Final = (int, float)
_HUGE: Final = 1e300  # past it: infinities, and integers that Python declines to print
_LINE: Final = "_inbox_line"
_OWN_KEYS: Final = frozenset({"timestamp", "level", "logger", "message"})
_STANDARD: Final = frozenset({*RESERVED_ATTRS, "message", "asctime", "taskName", _LINE})
_STANDARD_COUNT: Final = len(logging.makeLogRecord({}).__dict__)

_context: ContextVar[Fields] = ContextVar("inbox_log_context", default=MappingProxyType({}))


class LoggingSettings(Protocol):
    """What `setup_logger` wants to know. A `log_file_path` of None means: no file."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> Literal["json", "text"]: ...
    @property
    def log_file_path(self) -> Path | None: ...


def setup_logger(
    name: str, config: LoggingSettings, *, console: TextIO | Literal["stdout"] | None = "stdout"
) -> logging.Logger:
    """
    Return the logger `name`, writing to the console and, when a path is set, to the shared rotating file.

    The console is standard output as it is when a line is written, another stream, or None for none. Children of the
    logger inherit both. Called again it replaces and closes the handlers it made before. The file is opened with
    the first line, and a file that cannot be written is no error: see `SharedRotatingFileHandler`.
    """
    logger = logging.getLogger(name)
    for earlier in [one for one in logger.handlers if isinstance(one, ConsoleHandler | SharedRotatingFileHandler)]:
        logger.removeHandler(earlier)
        earlier.close()
    formatter = TextFormatter() if config.log_format == "text" else JSONFormatter()
    handlers: list[logging.Handler] = []
    if console is not None:
        handlers.append(ConsoleHandler(None if console == "stdout" else console))
    if config.log_file_path is not None:
        handlers.append(SharedRotatingFileHandler(config.log_file_path))
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.setLevel(config.log_level.upper())
    logger.propagate = False
    return logger


class LogContext:
    """
    Put `context` on every line written inside `with LogContext(logger, batch_id=…):` by this thread or task.

    Contexts nest: the inner value wins, and the outer one is back afterwards, also after an exception. Every logger
    whose lines are formatted here shows the fields, not only the given one, which is handed back for use inside.
    """

    def __init__(self, logger: logging.Logger, /, **context: object) -> None:
        self._logger = logger
        self._fields = {_own_name(key): value for key, value in context.items()}
        self._outer: list[Fields] = []

    def __enter__(self) -> logging.Logger:
        outer = _context.get()
        self._outer.append(outer)
        _context.set(MappingProxyType({**outer, **self._fields}))
        return self._logger

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _context.set(self._outer.pop())


def current_context() -> Fields:
    """Return the fields of every line written here and now; `dict()` of it can be handed to a thread or process."""
    return _context.get()


class JSONFormatter(JsonFormatter):
    """
    One line of JSON: timestamp (ISO 8601, UTC, milliseconds), level, logger, message, context fields, `extra` fields.

    `correlation_id` is the context's own, or else the first 12 characters of `batch_id`. A traceback is the field
    `exception`. Fields that would hide the first four keys get a trailing underscore.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stamp = _Stamp("%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        known = record.__dict__.get(_LINE)
        if known is not None and known[0] is self:  # console and file share the work
            return str(known[1])
        data: dict[str, Any] = {}
        self.add_fields(data, record, {})
        line = self.jsonify_log_record(data)
        record.__dict__[_LINE] = (self, line)
        return line

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["timestamp"] = self._stamp.of(record) + "Z"
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = _message_of(record)
        log_data.update(_context.get())
        log_data.update(_extra_of(record))
        log_data.update(message_dict)
        if "correlation_id" not in log_data and log_data.get("batch_id"):
            log_data["correlation_id"] = _text_of(log_data["batch_id"])[:CORRELATION_ID_LENGTH]
        if trace := _trace_of(self, record):
            log_data["exception"] = trace

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            line = _encode(log_data)
        except Exception:  # noqa: BLE001 - whatever a value does when looked at, the line is written
            return _encode(tidy(log_data))
        if ("://" in line and "@" in line) or "\\ud" in line:  # credentials, or surrogates that may stand alone
            return _encode(tidy(log_data))
        return line


class TextFormatter(logging.Formatter):
    """
    One line for people: `2026-01-31 12:00:00.123 INFO  message  batch_id=… key=value`.

    A traceback follows, indented, so that nothing in it can pass for a line of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stamp = _Stamp("%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        known = record.__dict__.get(_LINE)
        if known is not None and known[0] is self:
            return str(known[1])
        fields = {**_context.get(), **_extra_of(record)}
        line = text_line(self._stamp.of(record), record.levelname, _message_of(record), fields, _trace_of(self, record))
        record.__dict__[_LINE] = (self, line)
        return line


def text_line(when: str, level: str, message: str, fields: Fields, trace: str = "") -> str:
    """Lay one log entry out for people; nothing in it can start a new line or steer a terminal."""
    shown = " ".join(f"{visible(_text_of(key))}={_shown(value)}" for key, value in fields.items() if value is not None)
    line = f"{visible(when)} {visible(level):<5} {visible(mask_secrets(message))}{'  ' if shown else ''}{shown}"
    for part in mask_secrets(trace).rstrip("\n").split("\n") if trace else ():
        line += f"\n    {visible(part)}"
    return line


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """
    A stream, by default standard output as it is when a line is written.

    A console that is gone is no reason to stop, nor to complain.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        logging.Handler.__init__(self)  # as in `logging.lastResort`: standard output is looked up, not kept
        self._stream = stream

    @property
    def stream(self) -> TextIO:  # type: ignore[override] # an attribute in the base class
        return self._stream or sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        stream = self.stream
        try:
            line = self.format(record) + "\n"
            try:
                stream.write(line)
            except UnicodeEncodeError:
                stream.write(line.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
            stream.flush()
        except (OSError, ValueError, AttributeError):  # a broken pipe, a closed stream, no stream at all
            return
        except Exception:  # noqa: BLE001 - a foreign formatter may raise anything; logging never does
            self.handleError(record)


# `://user:password@`, the user possibly empty or an address; not a port; never beyond the start of the next URL.
_CREDENTIALS: Final = re.compile(r"(://[^\s:/\[]*):(?!\d{1,5}(?:[/?#\s\"',;)\]}]|$))(?:(?!://)\S)+@")
_PLAIN_VALUE: Final = re.compile(r"[^\s\"'=]+")


def mask_secrets(text: str) -> str:
    """Return `text` with the password of everything that looks like `scheme://user:password@host` as `***`."""
    return _CREDENTIALS.sub(r"\1:***@", text) if "://" in text and "@" in text else text


def visible(text: str) -> str:
    """Return `text` on one line, with control, formatting (bidi) and unassigned characters as Python escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def tidy(value: object, depth: int = 0) -> Any:
    """Return `value` as something JSON can always say: string keys, no lone surrogates, secrets masked, finite."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) in _NUMBERS and -_HUGE < cast("float", value) < _HUGE:
        return value
    if type(value) is not str and depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {tidy(_text_of(key)): tidy(one, depth + 1) for key, one in list(value.items())}
        if isinstance(value, list | tuple):
            return [tidy(one, depth + 1) for one in value]
        if isinstance(value, set | frozenset):
            return sorted((tidy(one, depth + 1) for one in value), key=str)
    text = mask_secrets(value if type(value) is str else _text_of(value))
    return text if text.isprintable() else text.encode("utf-8", "backslashreplace").decode("utf-8")


_encode: Final = json.JSONEncoder(default=tidy, allow_nan=False).encode


class _Stamp:
    """Formats a record's time in UTC; the part down to the second is made once a second."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._last = (-1, "")

    def of(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        last, text = self._last
        if second != last:
            text = time.strftime(self._pattern, time.gmtime(second))
            self._last = (second, text)
        return f"{text}.{int(record.msecs):03d}"


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or raise when shown, must not cost the line
        given = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join(_text_of(part) for part in (record.msg, *given))


def _extra_of(record: logging.LogRecord) -> dict[str, Any]:
    if len(record.__dict__) <= _STANDARD_COUNT:  # by far the most lines
        return {}
    return {_own_name(key): value for key, value in record.__dict__.items() if key not in _STANDARD}


def _trace_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not (record.exc_info or record.exc_text or record.stack_info):
        return ""
    trace = formatter.formatException(record.exc_info) if record.exc_info else record.exc_text
    return "\n".join(part for part in (trace, record.stack_info) if part)


def _own_name(key: str) -> str:
    return f"{key}_" if key in _OWN_KEYS else key


def _shown(value: object) -> str:
    text = tidy(value)
    is_plain = isinstance(text, str) and _PLAIN_VALUE.fullmatch(text)
    return visible(text if is_plain else json.dumps(text, ensure_ascii=False))


def _text_of(value: object) -> str:
    try:
        if isinstance(value, bytes | bytearray):
            return value.decode("utf-8", "backslashreplace")
        if isinstance(value, BaseException):
            return f"{type(value).__name__}: {value}"
        if isinstance(value, date | time_of_day):
            return value.isoformat()
        return str(value.value if isinstance(value, Enum) else value)
    except Exception:  # noqa: BLE001 - a value that cannot show itself must not cost the line
        return f"<unprintable {type(value).__name__}>"
