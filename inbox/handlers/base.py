"""What a handler sees, and how it says which files it wants."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeVar, overload

HandlerFunction = Callable[["File"], Any]
F = TypeVar("F", bound=Callable[..., Any])

EVERY_FILE: Final = ("*",)
MAX_VERSION_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class File:
    """
    One file of a batch, as a handler receives it.

    `path` is absolute and readable; treat the file as read-only. `member_path` is its path inside the archive,
    `file_type` one of pdf, word, excel, zip, text, unknown. `doc_id` stays the same over all attempts, restarts and
    repeated drops: use it as the idempotency key of whatever the handler does elsewhere. `attempt` counts from 1.
    """

    path: Path
    name: str
    member_path: str
    file_type: str
    size_bytes: int
    sha256: str
    doc_id: str
    batch_id: str
    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Skip:
    """Return this from a handler that has nothing to do for a file: it ends as `skipped`, with this reason code."""

    reason_code: str
    result: Any = None


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """
    A handler and the files it wants: file types and globs (on the member path or the name alone).

    `version` is what its author calls its present code.
    """

    name: str
    function: HandlerFunction
    patterns: tuple[str, ...] = EVERY_FILE
    version: str = ""

    def wants(self, file: File) -> bool:
        return self.patterns == EVERY_FILE or any(_matches(pattern, file) for pattern in self.patterns)


FILE_TYPES: Final = frozenset({"pdf", "word", "excel", "zip", "text", "unknown"})
_declared: list[HandlerSpec] = []


@overload
def handler(function: F, /) -> F: ...
@overload
def handler(*patterns: str, version: str = "") -> Callable[[F], F]: ...


def handler(*arguments: Any, version: str = "") -> Any:
    """
    Declare a function as handler: `@handler("pdf", "*.csv")`, or `@handler` for every file.

    A pattern is a file type (pdf, word, excel, zip, text, unknown) or a glob on the file's name or member path, case
    not regarded. The function receives a `File`, returns data that JSON can hold, or raises one of inbox's errors. It
    may be a coroutine function. `version` names its present code: with RETRY_ON_NEW_VERSION another one means that
    files which failed under the former are tried again. Raises TypeError for a pattern or a version that is not a
    string, ValueError for a version of more than 64 characters.
    """
    if len(arguments) == 1 and callable(arguments[0]):
        return _declare(arguments[0], EVERY_FILE, version)
    if not all(isinstance(pattern, str) and pattern for pattern in arguments):
        raise TypeError(f"handler patterns are file types or globs, as strings: {arguments!r}")
    if not isinstance(version, str):
        raise TypeError(f"a handler's version is a string: {version!r}")
    if len(version) > MAX_VERSION_CHARS:
        raise ValueError(f"a handler's version has at most {MAX_VERSION_CHARS} characters: {version!r}")
    patterns = tuple(pattern.casefold() for pattern in arguments) or EVERY_FILE
    return lambda function: _declare(function, patterns, version)


def declared_handlers() -> tuple[HandlerSpec, ...]:
    """Return what has been declared in this process, in order of declaration."""
    return tuple(_declared)


def _declare(function: F, patterns: tuple[str, ...], version: str) -> F:
    _declared.append(HandlerSpec(f"{function.__module__}.{function.__qualname__}", function, patterns, version))
    return function


def _matches(pattern: str, file: File) -> bool:
    if pattern in FILE_TYPES:
        return pattern == file.file_type
    return fnmatchcase(file.name.casefold(), pattern) or fnmatchcase(file.member_path.casefold(), pattern)
