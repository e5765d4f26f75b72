"""Working: a worker process, from its start in a fresh interpreter to its end."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from logging import Logger
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from inbox.app.opening import LOGGER, handler_settings
from inbox.config import Config
from inbox.core.errors import WorkerError, describe_error
from inbox.core.logging import setup_logger
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.domain import ClaimedFile
from inbox.handlers.base import File
from inbox.handlers.registry import load_handlers
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import Link, Worker, WorkerPlan
from inbox.service.narrating import narrator
from inbox.utils.clock import SystemClock

POLL_SECONDS: Final = {"sqlite": 30.0, "postgresql": 3.0}
"""How long an idle worker waits for work that nobody announced to it: on PostgreSQL other replicas register too."""

_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class WorkerProcess(SpawnProcess):
    """A worker leads a process group of its own, so that whatever its handler has started is killed with it."""

    def kill(self) -> None:
        if self.pid is not None and self.is_alive():
            with suppress(ProcessLookupError):  # so young that it does not lead one yet
                os.killpg(self.pid, signal.SIGKILL)
        super().kill()


def spawn_worker(config: Config, slots_path: Path, talk: bool, slot: int, owner: str) -> tuple[BaseProcess, Connection]:
    """
    Start a worker process: a fresh interpreter, since a fork of a process with threads is not to be trusted.

    `talk` says whether it logs to the console too.
    """
    ours, theirs = multiprocessing.Pipe()
    process = WorkerProcess(
        target=run_worker,
        args=(config, slots_path, talk, slot, owner, theirs),
        name=f"inbox-worker-{slot}",
        daemon=False,
    )
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


def run_worker(config: Config, slots_path: Path, talk: bool, slot: int, owner: str, connection: Connection) -> None:
    """
    Be a worker process, and end with 0 when told to drain, else with 1 and the reason in the log.

    Signals are the supervisor's business; a handler's prints must not mix with log lines.
    """
    os.setpgid(0, 0)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN: that would be inherited by what a handler starts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    logger = setup_logger(LOGGER, config, console=sys.stdout if talk else None)
    sys.stdout = sys.stderr
    try:
        _work(config, slots_path, slot, owner, connection, logger)
    except WorkerError as error:
        logger.error("worker %d ends: %s", slot, describe_error(error))  # noqa: TRY400 - it says what and why
        sys.exit(1)
    except Exception:
        logger.exception("worker %d ends", slot)
        sys.exit(1)
    finally:  # the interpreter's end brings back what signals do by default: a late one would look like a death
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _work(config: Config, slots_path: Path, slot: int, owner: str, connection: Connection, logger: Logger) -> None:
    clock = SystemClock()
    engine = create_engine(config.model_copy(update={"database_max_connections": 2}), makes_file=False)
    sessions = Sessions(get_session_factory(engine))
    registry = load_handlers(handler_settings(config))
    worker = Worker(
        WorkerPlan(
            slot=slot,
            owner=owner,
            lease_life=timedelta(seconds=config.lease_seconds),
            poll_interval=timedelta(seconds=POLL_SECONDS[make_url(config.database_url).get_backend_name()]),
        ),
        sessions=sessions,
        slots=Slots(slots_path),
        link=Link(connection),
        attempting=Attempting(registry, clock, config.max_retry_attempts, config.retry_base_delay_seconds),
        prepare=partial(file_for_handler, config.storage_base_path),
        clock=clock,
        emit=narrator(logger),
    )
    try:
        worker.run()
    finally:
        close(engine)


def file_for_handler(base: Path, claimed: ClaimedFile) -> File:
    """Return the file as its handler sees it."""
    return File(
        path=base / claimed.file_path,
        name=claimed.file_name,
        member_path=claimed.member_path,
        file_type=claimed.file_type,
        size_bytes=claimed.size_bytes,
        sha256=claimed.sha256,
        doc_id=claimed.doc_id,
        batch_id=claimed.batch_id,
        run_id=claimed.run_id,
        attempt=claimed.attempt,
    )
