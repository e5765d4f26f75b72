"""Working: a worker process, from its start in a fresh interpreter to its end."""

import os
from datetime import timedelta
from functools import partial
from logging import Logger
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from inbox.app.mounting import require_before_connecting
from inbox.app.opening import handler_settings
from inbox.app.processes import in_own_process, show_as, spawn, wait_for_volume
from inbox.app.values import file_for_handler
from inbox.config import Config
from inbox.core.errors import StorageError
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.handlers.registry import load_handlers
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.breaker import share_of
from inbox.pipeline.dispatching.excusing import Excusing
from inbox.pipeline.dispatching.link import ORPHANED, TROUBLE, Link
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import Worker, WorkerPlan
from inbox.service.folding import Folding
from inbox.service.narrating import narrator
from inbox.utils.clock import SystemClock
from inbox.utils.kin import kill_kin
from inbox.utils.volume import Volume

POLL_SECONDS: Final = {"sqlite": 30.0, "postgresql": 3.0}
"""How long an idle worker waits for work that nobody announced to it: on PostgreSQL other replicas register too."""


def spawn_worker(
    config: Config, volume: Volume, slots_path: Path, talk: bool, slot: int, owner: str
) -> tuple[BaseProcess, Connection]:
    """Start a worker process; `talk` says whether it logs to the console too."""
    arguments = (config, volume, slots_path, talk, slot, owner)
    return spawn(run_worker, *arguments, name=f"inbox-worker-{slot}", owner=owner)


def run_worker(  # noqa: PLR0917 - what a fresh interpreter needs to know
    config: Config, volume: Volume, slots_path: Path, talk: bool, slot: int, owner: str, connection: Connection
) -> None:
    """Be a worker process, and end with 0 when told to drain, else with 1 and the reason in the log."""
    show_as("inbox-worker")
    with in_own_process(config, volume, owner=owner, talk=talk, called=f"worker {slot}") as logger:
        _work(config, volume, slots_path, slot, owner, connection, logger)


def _work(  # noqa: PLR0917 - likewise
    config: Config, volume: Volume, slots_path: Path, slot: int, owner: str, connection: Connection, logger: Logger
) -> None:
    clock = SystemClock()
    link = Link(connection, end=partial(_end_with_kin, owner))
    if not _wait_for_volume(volume, link):
        return
    excusing = Excusing(volume)
    engine = create_engine(config.model_copy(update={"database_max_connections": 2}), makes_file=False)
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
    def wait(seconds: float) -> None:
        link.say(TROUBLE)
        link.wait(seconds)

    return wait_for_volume(volume, is_draining=lambda: link.draining, wait=wait)
