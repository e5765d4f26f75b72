"""`inbox logs`."""

import json
import logging
import time
from collections import deque
from pathlib import Path
from typing import Final

from inbox.core.errors import ConfigurationError
from inbox.service.logtail import Entry, LogFilter, follow, read_lines, render_text, select

_POLL_SECONDS: Final = 0.2


def tail(path: Path, wanted: LogFilter, *, follow_on: bool, lines: int, as_json: bool) -> None:
    """
    Print the last lines that the filter accepts, and with `follow_on` what comes after, until interrupted.

    Raises ConfigurationError when there is no log yet and nobody wants to wait for one.
    """
    if wanted.level and wanted.level.upper() not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"no such level: {wanted.level}", hint="DEBUG, INFO, WARNING, ERROR or CRITICAL")
    if not follow_on and not path.exists():
        raise ConfigurationError(f"no log yet at {path}", hint="start `inbox run`, or set LOG_FILE_PATH")
    if not follow_on:
        for entry in deque(select(read_lines(path), wanted), maxlen=lines):
            _print(entry, as_json=as_json)
        return
    try:
        for entry in select(follow(path, wait=_pause, last=lines), wanted):
            _print(entry, as_json=as_json)
    except KeyboardInterrupt:
        return


def _print(entry: Entry | str, *, as_json: bool) -> None:
    if isinstance(entry, str):
        print(entry, flush=True)
    elif as_json:
        print(json.dumps(entry), flush=True)
    else:
        print(render_text(entry), flush=True)


def _pause() -> bool:
    time.sleep(_POLL_SECONDS)
    return True
