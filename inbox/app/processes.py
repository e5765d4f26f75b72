"""Processes of our own: started in a fresh interpreter, leading a group of their own, deaf to signals."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import Logger
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from inbox.app.opening import LOGGER
from inbox.config import Config
from inbox.core.errors import WorkerError, describe_error
from inbox.core.logging import setup_logger

_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class OwnProcess(SpawnProcess):
    """One that leads a process group of its own, so that whatever it has started is killed with it."""

    def kill(self) -> None:
        if self.pid is not None and self.is_alive():
            with suppress(ProcessLookupError):  # so young that it does not lead one yet
                os.killpg(self.pid, signal.SIGKILL)
        super().kill()


def spawn(run: Callable[..., None], *arguments: Any, name: str) -> tuple[BaseProcess, Connection]:
    """
    Start a process that runs `run(*arguments, connection)`; return it with our end of the connection.

    A fresh interpreter, since a fork of a process with threads is not to be trusted. Raises OSError when there is no
    room for it.
    """
    ours, theirs = multiprocessing.Pipe()
    process = OwnProcess(target=run, args=(*arguments, theirs), name=name, daemon=False)
    try:
        with _signals_held():
            process.start()
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals to the whole process group reach a process that is made here only when it is ready for them."""
    resource_tracker.ensure_running()  # it unblocks both signals when it is started by the way
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def in_own_process(config: Config, *, talk: bool, called: str) -> Iterator[Logger]:
    """
    Be such a process for the block, which gets the logger; an error ends it with 1, and the reason in the log.

    Signals are the supervisor's business; prints of others' code must not mix with log lines. `talk` says whether the
    console gets the log, too; `called` is the process in the log.
    """
    os.setpgid(0, 0)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN: that would be inherited by what a handler starts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    logger = setup_logger(LOGGER, config, console=sys.stdout if talk else None)
    sys.stdout = sys.stderr
    try:
        yield logger
    except WorkerError as error:
        logger.error("%s ends: %s", called, describe_error(error))  # noqa: TRY400 - it says what and why
        sys.exit(1)
    except Exception:
        logger.exception("%s ends", called)
        sys.exit(1)
    finally:  # the interpreter's end brings back what signals do by default: a late one would look like a death
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def show_as(name: str) -> None:
    """Show this process by a name of at most 15 letters in `ps -o comm` and `top`, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, "ascii")
