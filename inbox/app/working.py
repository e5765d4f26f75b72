"""Working: a worker process, from its start in a fresh interpreter to its end."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import count
from logging import Logger
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from inbox.app.mounting import keep_log_to, require_before_connecting
from inbox.app.opening import LOGGER, handler_settings
from inbox.app.values import file_for_handler
from inbox.config import Config
from inbox.core.errors import StorageError, WorkerError, describe_error
from inbox.core.logging import setup_logger
from inbox.core.retry import calculate_backoff
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.handlers.registry import load_handlers
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.breaker import share_of
from inbox.pipeline.dispatching.excusing import Excusing
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import ORPHANED, TROUBLE, Link, Worker, WorkerPlan
from inbox.service.folding import Folding
from inbox.service.narrating import narrator
from inbox.utils.clock import SystemClock
from inbox.utils.kin import kill_kin, mark_what_is_started
from inbox.utils.volume import Volume

POLL_SECONDS: Final = {"sqlite": 30.0, "postgresql": 3.0}
"""How long an idle worker waits for work that nobody announced to it: on PostgreSQL other replicas register too."""

_PATIENCE_BASE_SECONDS: Final = 0.2
_PATIENCE_MAX_SECONDS: Final = 10.0
_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM})


class WorkerProcess(SpawnProcess):
    """A worker leads a process group of its own, and whatever its handlers have started is killed with it."""

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


def spawn_worker(
    config: Config, volume: Volume, slots_path: Path, talk: bool, slot: int, owner: str
) -> tuple[BaseProcess, Connection]:
    """
    Start a worker process: a fresh interpreter, since a fork of a process with threads is not to be trusted.

    `talk` says whether it logs to the console too.
    """
    ours, theirs = multiprocessing.Pipe()
    process = WorkerProcess(
        target=run_worker,
        args=(config, volume, slots_path, talk, slot, owner, theirs),
        name=f"inbox-worker-{slot}",
        daemon=False,
    )
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


def run_worker(  # noqa: PLR0917 - what a fresh interpreter needs to know
    config: Config, volume: Volume, slots_path: Path, talk: bool, slot: int, owner: str, connection: Connection
) -> None:
    """
    Be a worker process, and end with 0 when told to drain, else with 1 and the reason in the log.

    Signals are the supervisor's business; a handler's prints must not mix with log lines.
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
        _work(config, volume, slots_path, slot, owner, connection, logger)
    except WorkerError as error:
        logger.error("worker %d ends: %s", slot, describe_error(error))  # noqa: TRY400 - it says what and why
        sys.exit(1)
    except Exception:
        logger.exception("worker %d ends", slot)
        sys.exit(1)
    finally:  # the interpreter's end brings back what signals do by default: a late one would look like a death
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _work(  # noqa: PLR0917 - likewise
    config: Config, volume: Volume, slots_path: Path, slot: int, owner: str, connection: Connection, logger: Logger
) -> None:
    clock = SystemClock()
    link = Link(connection, end=partial(_end_with_kin, owner))
    if not _wait_for_volume(volume, link):
        return
    excusing = Excusing(volume)
    engine = create_engine(config.model_copy(update={"database_max_connections": 2}))
    require_before_connecting(engine, volume)
    sessions = Sessions(get_session_factory(engine))
    registry = load_handlers(handler_settings(config))
    folding = Folding(narrator(logger), clock, same_cause=config.log_same_cause, by=f"worker {slot}")
    worker = Worker(
        WorkerPlan(
            slot=slot,
            owner=owner,
            lease_life=timedelta(seconds=config.lease_seconds),
            poll_interval=timedelta(seconds=POLL_SECONDS[make_url(config.database_url).get_backend_name()]),
            breaker_outcomes=share_of(config.circuit_breaker_failures, config.worker_processes),
        ),
        sessions=sessions,
        slots=open_slots(slots_path),
        link=link,
        attempting=Attempting(
            registry, clock, config.max_retry_attempts, config.retry_base_delay_seconds, excusing.excuse
        ),
        prepare=partial(file_for_handler, config.storage_base_path),
        clock=clock,
        emit=folding,
        excusing=excusing,
    )
    try:
        with folding:
            worker.run()
    finally:
        close(engine)


def _end_with_kin(owner: str) -> None:
    kill_kin(os.getpid(), owner)
    os._exit(ORPHANED)


def open_slots(path: Path) -> Slots:
    """Return the slots of this service's workers; raises StorageError while the volume does not give them."""
    try:
        return Slots(path)
    except OSError as error:
        raise StorageError(f"the workers' slots cannot be opened: {error.strerror}", subject=str(path)) from error


def _wait_for_volume(volume: Volume, link: Link) -> bool:
    """Connect to no database, and make no file, before the volume is there; False when told to end meanwhile."""
    for failures in count():
        try:
            volume.require()
        except StorageError:
            link.say(TROUBLE)
            link.wait(calculate_backoff(failures, _PATIENCE_BASE_SECONDS, _PATIENCE_MAX_SECONDS))
            if link.draining:
                return False
        else:
            break
    return True
