"""
The handler under torture: does what the member's name says, and notes each call in a journal outside of the volume.

A line for a call begun and one for a call ended, each by one write to a file opened for appending, so that a kill
leaves either the whole line or none.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from inbox import File, ParseError, RetryableError, Skip, handler

SLOW_SECONDS = 0.3
LONG_SECONDS = 600.0
LARGE = "x" * 200_000

_journal = os.open(os.environ["TORTURE_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
_service = os.environ["TORTURE_SERVICE"]


@handler
def by_name(file: File) -> object:
    _note("B", file, "")
    try:
        result = _do(file)
    except BaseException as error:
        _note("E", file, type(error).__name__)
        raise
    _note("E", file, "skip" if isinstance(result, Skip) else "ok")
    return result


def _note(what: str, file: File, how: str) -> None:
    line = f"{what} {file.doc_id} {file.attempt} {_service}/{os.getpid()} {time.time_ns()} {how}\n"
    os.write(_journal, line.encode())


def _do(file: File) -> object:
    does = file.name.partition("-")[0]
    if does.endswith("once"):
        does = does.removesuffix("once") if file.attempt == 1 else "ok"
    if does == "killservice" and file.attempt > 1:
        does = "ok"
    if does in ACTIONS:
        ACTIONS[does]()
    match does:
        case "retry1" | "retry2" if file.attempt <= int(does[-1]):
            raise RetryableError("not yet")
        case "always":
            raise RetryableError("never")
        case "broken":
            raise ParseError("cannot be read", subject=file.member_path)
        case "skip":
            return Skip("NOTHING_TO_DO")
        case "large":
            return {"text": LARGE}
        case "nul":
            return {"text": "a\0b\ud800", "number": float("nan")}
    return {"size": file.path.stat().st_size, "attempt": file.attempt}


def _kill_service() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(LONG_SECONDS)


ACTIONS: Final[dict[str, Callable[[], None]]] = {
    "output": lambda: print("a handler's own words"),
    "slow": lambda: time.sleep(SLOW_SECONDS),
    "hang": lambda: time.sleep(LONG_SECONDS),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "killservice": _kill_service,
}
"""What a handler does beside returning something; some never come back."""
