"""
Reading the log the way people ask for it: the last lines, the lines of one batch or file, and what comes next.

Only the newline ends a line, so whatever else a file name brings along cannot split one.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

from inbox.core.logging import CORRELATION_ID_LENGTH, text_line

Entry: TypeAlias = dict[str, Any]

_BLOCK_BYTES: Final = 64 * 1024
_WATCHED_FILES: Final = 5  # a writer interrupted at the wrong moment is late by a rotation, rarely by more
_NAME_FIELDS: Final = ("member_path", "file_name", "file_path")
_LAID_OUT: Final = frozenset({"timestamp", "level", "logger", "message", "exception"})
_TEXT_LINE: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?P<level>[A-Z]+) ")


@dataclass(frozen=True, slots=True)
class LogFilter:
    """
    Which entries to show; None asks nothing.

    `batch` is the start of a batch id. `file` is the start of a document's id, or a part or glob of its name.
    `level` is the least level.
    """

    batch: str | None = None
    file: str | None = None
    level: str | None = None

    def accepts(self, entry: Mapping[str, object]) -> bool:
        return self._accepts_level(entry.get("level")) and self._accepts_batch(entry) and self._accepts_file(entry)

    def accepts_text(self, line: str) -> bool:
        """Judge a line in text format by what stands in it."""
        found = _TEXT_LINE.match(line)
        return (
            self._accepts_level(found["level"] if found else None)
            and (not self.batch or re.search(rf"\b(batch_id|correlation_id)={re.escape(self.batch)}", line) is not None)
            and (not self.file or self.file in line or fnmatchcase(line, f"*{self.file}*"))
        )

    def _accepts_level(self, level: object) -> bool:
        if not self.level:
            return True
        known = logging.getLevelNamesMapping()
        return known.get(str(level).upper(), logging.NOTSET) >= known.get(self.level.upper(), logging.NOTSET)

    def _accepts_batch(self, entry: Mapping[str, object]) -> bool:
        if not self.batch or str(entry.get("batch_id") or "").startswith(self.batch):
            return True
        correlation = str(entry.get("correlation_id") or "")
        is_shortened = "batch_id" not in entry and len(correlation) == CORRELATION_ID_LENGTH
        return correlation.startswith(self.batch) or (is_shortened and self.batch.startswith(correlation))

    def _accepts_file(self, entry: Mapping[str, object]) -> bool:
        wanted = self.file
        if not wanted or any(str(entry.get(key) or "").startswith(wanted) for key in ("doc_id", "file_id")):
            return True
        names = [str(entry[key]) for key in _NAME_FIELDS if entry.get(key)]
        return any(wanted in name or fnmatchcase(name, wanted) for name in names)


def select(lines: Iterable[str], wanted: LogFilter) -> Iterator[Entry | str]:
    """Yield the lines that `wanted` accepts: JSON ones parsed, others as they are, indented ones with their head."""
    accepted = wanted == LogFilter()
    for line in lines:
        entry = _parse(line)
        if entry is not None:
            accepted = wanted.accepts(entry)
        elif _TEXT_LINE.match(line) or not line.startswith(" "):
            accepted = wanted.accepts_text(line)
        if accepted:
            yield line if entry is None else entry


def render_text(entry: Mapping[str, object]) -> str:
    """Return a JSON entry the way `TextFormatter` writes lines; nothing in it can steer a terminal."""
    when = str(entry.get("timestamp", "")).replace("T", " ").removesuffix("Z")
    is_shortened = str(entry.get("batch_id", "")).startswith(str(entry.get("correlation_id", "")))
    hidden = _LAID_OUT | ({"correlation_id"} if is_shortened else set())
    fields = {key: value for key, value in entry.items() if key not in hidden}
    trace = str(entry.get("exception") or "")
    return text_line(when, str(entry.get("level", "")), str(entry.get("message", "")), fields, trace)


def read_lines(path: Path, *, last: int | None = None) -> Iterator[str]:
    """Yield the last `last` lines, or all, oldest first, going back into the rotated files as far as needed."""
    with ExitStack() as stack:
        files = [stack.enter_context(file) for file in _open_generations(path)]
        if last is not None:
            yield from map(_decode, _last_lines(files, last))
            return
        for file in reversed(files):
            yield from (_decode(line.removesuffix(b"\n")) for line in file)


def follow(path: Path, *, wait: Callable[[], bool], from_end: bool = True, last: int = 0) -> Generator[str, None, None]:
    """
    Yield whole lines as they are written, across rotation, truncation and a file that is not there yet.

    Starts `last` lines before the end, or at the file's beginning without `from_end`. `wait` is called when there is
    nothing more to read; when it returns False, following ends. Lines written to a file just after it was renamed are
    still found.
    """
    following: list[_Tail] = []
    try:
        generations = _open_generations(path)
        following = [_Tail(file) for file in generations[:1]]
        before: list[bytes] = []
        if from_end and following:
            before = _last_lines(generations, last, end=following[0].go_to_end())
        for file in generations[1:]:
            file.close()
        yield from map(_decode, before)
        while True:
            for tail in following:
                yield from tail.lines()
            newer = _newer_generations(path, following)
            if newer:
                following += newer
                for outdated in following[:-_WATCHED_FILES]:
                    outdated.close()
                following = following[-_WATCHED_FILES:]
            elif not wait():
                return
    finally:
        for tail in following:
            tail.close()


class _Tail:
    """One open log file, and how far it has been read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""
        self.identity = _identity(os.fstat(file.fileno()))

    def go_to_end(self) -> int:
        """Go behind the last whole line, and return that offset."""
        return self._file.seek(_end_of_lines(self._file))

    def lines(self) -> Iterator[str]:
        if _size(self._file) < self._file.tell():  # truncated in place
            self._file.seek(0)
            self._rest = b""
        while block := self._file.read(_BLOCK_BYTES):
            *whole, self._rest = (self._rest + block).split(b"\n")
            yield from map(_decode, whole)

    def close(self) -> None:
        self._file.close()


def _newer_generations(path: Path, following: list[_Tail]) -> list[_Tail]:
    """Return the files that came after the one last followed, oldest first, opened at their beginning."""
    try:
        if following and _identity(path.stat()) == following[-1].identity:
            return []
    except FileNotFoundError:
        return []  # between two files, or none yet
    generations = _open_generations(path)
    identities = [_identity(os.fstat(file.fileno())) for file in generations]
    if not following:
        newer = len(generations)
    elif following[-1].identity in identities:
        newer = identities.index(following[-1].identity)
    else:  # removed, not rotated: the others may be older
        newer = 1
    for file in generations[newer:]:
        file.close()
    return [_Tail(file) for file in reversed(generations[:newer])]


def _open_generations(path: Path) -> list[BinaryIO]:
    """
    Return the log file and its rotated predecessors, newest first.

    Opened in this order, a rotation in between can only show a file twice, which is undone here; none is missed.
    """
    opened: dict[tuple[int, int], BinaryIO] = {}
    for candidate in chain([path], _backups(path)):
        try:
            file = candidate.open("rb")
        except FileNotFoundError:
            continue
        identity = _identity(os.fstat(file.fileno()))
        if identity in opened:
            file.close()
        else:
            opened[identity] = file
    return list(opened.values())


def _backups(path: Path) -> Iterator[Path]:
    """Yield `path.1`, `path.2` and so on, tolerant of gaps, and one more: a rotation meanwhile moves all up by one."""
    names = (entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else ()
    suffixes = [name.removeprefix(f"{path.name}.") for name in names if name.startswith(f"{path.name}.")]
    numbers = sorted(int(suffix) for suffix in suffixes if suffix.isascii() and suffix.isdigit())
    for number in (*numbers, numbers[-1] + 1 if numbers else 1):
        yield path.with_name(f"{path.name}.{number}")


def _last_lines(files: list[BinaryIO], count: int, *, end: int | None = None) -> list[bytes]:
    """Return the last `count` lines of `files` (newest first; the first only up to `end`) in the order written."""
    found: list[bytes] = []
    for position, file in enumerate(files):
        missing = count - len(found)
        if missing <= 0:
            break
        found = _last_lines_of(file, end if end is not None and position == 0 else _size(file), missing) + found
    return found


def _last_lines_of(file: BinaryIO, end: int, count: int) -> list[bytes]:
    blocks: list[bytes] = []
    newlines, start = 0, end
    while start > 0 and newlines <= count:
        length = min(_BLOCK_BYTES, start)
        start -= length
        blocks.append(os.pread(file.fileno(), length, start))
        newlines += blocks[-1].count(b"\n")
    text = b"".join(reversed(blocks))
    return text.removesuffix(b"\n").split(b"\n")[-count:] if text else []


def _end_of_lines(file: BinaryIO) -> int:
    """Return the offset behind the last newline."""
    end = _size(file)
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        newline = os.pread(file.fileno(), end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


def _parse(line: str) -> Entry | None:
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
