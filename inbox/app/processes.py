"""Processes of our own: started in a fresh interpreter, leading a group of their own, deaf to signals."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from logging import Logger
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from inbox.app.mounting import keep_log_to
from inbox.app.opening import LOGGER
from inbox.config import Config
from inbox.core.errors import StorageError, WorkerError, describe_error
from inbox.core.logging import setup_logger
from inbox.core.retry import calculate_backoff
from inbox.utils.kin import kill_kin, mark_what_is_started
from inbox.utils.volume import Volume

_PATIENCE_BASE_SECONDS: Final = 0.2
_PATIENCE_MAX_SECONDS: Final = 10.0
_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class OwnProcess(SpawnProcess):
    """One that leads a process group of its own; whatever it has started is killed with it."""

    owner = ""

    def kill(self) -> None:
        """Kill it, and what it has started; also what one that has ended already has left."""
        if self.pid is None:
            return
        if self.is_alive():
            with suppress(ProcessLookupError):  # so that its handler makes nothing of the end of what it waits for
                os.kill(self.pid, signal.SIGSTOP)
        kill_kin(self.pid, self.owner)
        super().kill()


def spawn(run: Callable[..., None], *arguments: Any, name: str, owner: str) -> tuple[BaseProcess, Connection]:
    """
    Start a process that runs `run(*arguments, connection)`; return it with our end of the connection.

    What it starts carries the mark of `owner`.

    A fresh interpreter, since a fork of a process with threads is not to be trusted. Raises OSError when there is no
    room for it.
    """
    ours, theirs = multiprocessing.Pipe()
    process = OwnProcess(target=run, args=(*arguments, theirs), name=name, daemon=False)
    process.owner = owner
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
def in_own_process(config: Config, volume: Volume, *, owner: str, talk: bool, called: str) -> Iterator[Logger]:
    """
    Be such a process for the block, which gets the logger; an error ends it with 1, and the reason in the log.

    Signals are the supervisor's business; prints of others' code must not mix with log lines. `talk` says whether the
    console gets the log, too; `called` is the process in the log.
    """
    os.setpgid(0, 0)
    mark_what_is_started(owner)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN: that would be inherited by what a handler starts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    logger = setup_logger(LOGGER, config, console=sys.stdout if talk else None)
    keep_log_to(volume, logger)
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


def wait_for_volume(volume: Volume, *, is_draining: Callable[[], bool], wait: Callable[[float], object]) -> bool:
    """Return True as soon as the volume is there, before which nothing is to be made; False when told to end."""
    for failures in count():
        try:
            volume.require()
        except StorageError:
            wait(calculate_backoff(failures, _PATIENCE_BASE_SECONDS, _PATIENCE_MAX_SECONDS))
            if is_draining():
                return False
        else:
            break
    return True


def show_as(name: str) -> None:
    """Show this process by a name of at most 15 letters in `ps -o comm` and `top`, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, "ascii")
