"""The services' own words: every line is JSON, and none of them is a surprise."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

EXPECTED: Final = re.compile(
    r"a handler's own words"
    r"|inbox: .* stays in the uploads: .*"
    r"|(FATAL|WARNING):  terminating connection .*"  # libpq's own
    r"|inbox: ended by a second signal"
    r"|inbox: log file .* (cannot be written|is written again).*"
    r"|inbox: .*(is not writable|not a folder|cannot make|cannot mark|does not exist).*"  # started without its volume
    r"|inbox: the database file is gone: .*"  # likewise, with the embedded database on it
    r"|.*CoverageWarning.*"
    r"|.*resource_tracker.*"  # multiprocessing's own, when its helper was killed
)
ORPHANED: Final = re.compile(r"(EOFError|BrokenPipeError|ConnectionResetError|FileNotFoundError|KeyboardInterrupt)\b")
"""How a worker process ends that finds no parent when it starts."""
OURS: Final = re.compile(r'  File ".*/inbox/')


def violations_in_logs(folder: Path) -> dict[str, Iterator[str]]:
    """Return what is wrong with the lines of all replicas, by promise."""
    outputs, errors = sorted(folder.glob("r*.out")), sorted(folder.glob("r*.err"))
    return {
        "every line is JSON": chain.from_iterable(map(_no_json, outputs)),
        "nothing is a surprise": chain.from_iterable(map(_surprises, outputs)),
        "nothing is said on standard error": chain.from_iterable(map(_words, errors)),
    }


def _no_json(path: Path) -> Iterator[str]:
    """Find lines that are none; the last thing that a killed process said may have lost its end."""
    with path.open(errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                json.loads(line)
            except ValueError:
                if not _was_cut(line):
                    yield f"{path.name}:{number}: {line.strip()[:300]}"


def _was_cut(line: str) -> bool:
    """Say whether a whole line stands behind the beginning of one."""
    at = line.rfind('{"timestamp"')
    if at <= 0:
        return False
    try:
        json.loads(line[at:])
    except ValueError:
        return False
    return True


def _surprises(path: Path) -> Iterator[str]:
    with path.open(errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if '"exception"' in line or "Traceback" in line or "SURPRISE" in line:
                yield f"{path.name}:{number}: {line.strip()[:3000]}"


def _words(path: Path) -> Iterator[str]:
    """Find what nobody expects; a traceback is one of it, unless it is that of a process that lost its parent."""
    with path.open(errors="replace") as lines:
        said = lines.read()
    for paragraph in re.split(r"\n(?! )", said):
        if paragraph.startswith("Traceback") and not OURS.search(paragraph):
            continue
        first = paragraph.strip().partition("\n")[0]
        if first and not EXPECTED.fullmatch(first) and not ORPHANED.match(first):
            yield f"{path.name}: {paragraph.strip()[:1500]}"
