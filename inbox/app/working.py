"""Working: a worker process, from its start in a fresh interpreter to its end."""

from datetime import timedelta
from functools import partial
from logging import Logger
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from inbox.app.opening import handler_settings
from inbox.app.processes import in_own_process, show_as, spawn
from inbox.config import Config
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


def spawn_worker(config: Config, slots_path: Path, talk: bool, slot: int, owner: str) -> tuple[BaseProcess, Connection]:
    """Start a worker process; `talk` says whether it logs to the console too."""
    return spawn(run_worker, config, slots_path, talk, slot, owner, name=f"inbox-worker-{slot}")


def run_worker(config: Config, slots_path: Path, talk: bool, slot: int, owner: str, connection: Connection) -> None:
    """Be a worker process, and end with 0 when told to drain, else with 1 and the reason in the log."""
    show_as("inbox-worker")
    with in_own_process(config, talk=talk, called=f"worker {slot}") as logger:
        _work(config, slots_path, slot, owner, connection, logger)


def _work(config: Config, slots_path: Path, slot: int, owner: str, connection: Connection, logger: Logger) -> None:
    clock = SystemClock()
    engine = create_engine(config.model_copy(update={"database_max_connections": 2}))
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
