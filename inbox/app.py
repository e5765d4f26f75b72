"""The composition root: turns settings into a service, in the main process and in each worker process."""

import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, make_url

from inbox.archives import Limits
from inbox.config import Config, redact_url
from inbox.core.errors import ConfigurationError, DatabaseUnavailableError
from inbox.core.logging import setup_logger
from inbox.core.retry import retry_with_backoff
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.database.migrating import require_current, upgrade
from inbox.domain import ClaimedFile
from inbox.events import Event, ServiceStarted, ServiceStopped, ServiceStopping
from inbox.handlers.base import File
from inbox.handlers.registry import HandlerSettings, load_handlers
from inbox.pipeline.claiming import Claimer
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.supervising import Supervision, Supervisor
from inbox.pipeline.dispatching.worker import Link, Worker, WorkerPlan
from inbox.pipeline.instances import Instance, this_owner
from inbox.pipeline.registering import Registrar
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.rescuing import Rescuer, RetryPolicy
from inbox.pipeline.runner import Closing, Intake, Rescuing, Timing
from inbox.pipeline.settling import Settler
from inbox.pipeline.summarising import Summariser
from inbox.pipeline.watching import Watch
from inbox.service.daemon import Daemon, Rhythm, Tally
from inbox.service.narrating import narrator
from inbox.service.server import ProbeServer
from inbox.utils.clock import Bell, SystemClock
from inbox.utils.filetypes import get_file_type
from inbox.utils.mounts import filesystem_type, is_network
from inbox.utils.volume import Volume

LOGGER: Final = "inbox"
SETTLE_SECONDS: Final = {"local": 2.0, "network": 5.0}
SCAN_SECONDS: Final = {"local": 15.0, "network": 5.0}
POLL_SECONDS: Final = {"sqlite": 30.0, "postgresql": 3.0}
"""How long an idle worker waits for work that nobody announced to it: on PostgreSQL other replicas register too."""
ONCE_SCAN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A checked configuration with its database at hand."""

    config: Config
    engine: Engine
    sessions: Sessions
    volume: Volume


@contextmanager
def opened(config: Config, *, migrate: bool, wait: bool = False) -> Iterator[Opened]:
    """
    Check the settings, connect, bring the schema up to date (or require it to be), and close at the end.

    With `wait` a database that does not answer is waited for. Raises ConfigurationError, DatabaseUnavailableError,
    DatabaseRefusedError.
    """
    config.validate()
    refuse_sqlite_on_network(config)
    engine = create_engine(config)
    prepare: Callable[[Engine], object] = upgrade if migrate else require_current
    if wait:
        prepare = _patiently(prepare)
    try:
        prepare(engine)
        yield Opened(config, engine, Sessions(get_session_factory(engine)), volume_of(config))
    finally:
        close(engine)


def volume_of(config: Config) -> Volume:
    return Volume.at(
        config.storage_base_path, uploads=config.storage_uploads_dir, extracted=config.storage_extracted_dir
    )


def locality_of(config: Config) -> str:
    """Say whether the uploads lie on a `local` or a `network` file system."""
    return "network" if is_network(filesystem_type(volume_of(config).uploads)) else "local"


def refuse_sqlite_on_network(config: Config) -> None:
    """Raise ConfigurationError for an SQLite file on a network file system, where its locking corrupts it."""
    url = make_url(config.database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    kind = filesystem_type(Path(url.database).parent)
    if is_network(kind):
        raise ConfigurationError(
            f"SQLite cannot live on a network file system ({kind}): {url.database}",
            hint="set DATABASE_URL to PostgreSQL, or to sqlite:////a/local/folder/inbox.db",
        )


def handler_settings(config: Config) -> HandlerSettings:
    return HandlerSettings(
        modules=config.handlers,
        handler_url=config.handler_url or None,
        timeout_seconds=config.file_processing_timeout,
        unreadable=config.unreadable_files,
        max_text_chars=config.max_text_chars,
        storage_base=config.storage_base_path,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `run` came to."""

    failed: int
    incomplete: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        return not self.failed and not self.incomplete


def serve(config: Config, *, once: bool, on_progress: Callable[[Sessions], None] | None = None) -> Verdict:
    """
    Run the service until SIGTERM or SIGINT, or with `once` until nothing is left to do.

    With `on_progress` (for `once`) that is called several times a second, and log lines go to the file alone. A second
    signal ends it at once. Raises ConfigurationError and DatabaseRefusedError before anything has started.
    """
    stop = Stop()
    clock = SystemClock()
    with ExitStack() as stack:
        logger = setup_logger(LOGGER, config, console=None if on_progress else "stdout")
        narrate = narrator(logger)
        tally = Tally()

        def emit(event: Event) -> None:
            tally(event)
            narrate(event)

        load_handlers(handler_settings(config))  # a mistake in a handler module shows now, not in a worker
        at_hand = stack.enter_context(opened(config, migrate=config.database_migrate, wait=not once))
        at_hand.volume.make()
        began = clock.monotonic()
        instance = stack.enter_context(
            Instance(at_hand.volume.instances, this_owner(), workers=config.worker_processes)
        )
        daemon = compose(at_hand, instance, emit, tally, once=once, talk=on_progress is None)
        if config.http_port and not once:
            server = ProbeServer(config.http_host, config.http_port, live=daemon.live, ready=daemon.ready)
            server.start()
            stack.callback(server.stop)
        emit(
            ServiceStarted(
                str(config.storage_base_path), redact_url(config.database_url), config.worker_processes, instance.owner
            )
        )
        with daemon.running():
            if once:
                daemon.wait_until_done(stop.is_asked, on_progress or (lambda _sessions: None))
            else:
                stop.wait()
            if stop.is_asked():
                emit(ServiceStopping(stop.reason))
        emit(ServiceStopped(round(clock.monotonic() - began, 1)))
    return Verdict(tally.failed, tuple(daemon.incomplete_drops()))


def compose(
    at_hand: Opened, instance: Instance, emit: Callable[[Event], None], tally: Tally, *, once: bool, talk: bool = True
) -> Daemon:
    """Put the service together from plain values."""
    config, sessions, volume, clock = at_hand.config, at_hand.sessions, at_hand.volume, SystemClock()
    locality = locality_of(config)
    lease_life = timedelta(seconds=config.lease_seconds)
    batch_time = timedelta(seconds=config.batch_processing_timeout)
    timing = Timing(lease_life, timedelta(seconds=config.damaged_grace_seconds), batch_time)
    scan_seconds = config.scan_interval_seconds or (ONCE_SCAN_SECONDS if once else SCAN_SECONDS[locality])
    reporter = Reporter(sessions, volume, clock, after_success=config.after_success)
    intake = Intake(
        volume=volume,
        sessions=sessions,
        clock=clock,
        settler=Settler(
            timedelta(seconds=config.settle_seconds or SETTLE_SECONDS[locality]),
            clock,
            trust_age=locality == "local",
        ),
        claimer=Claimer(sessions, clock, owner=instance.owner, life=lease_life),
        registrar=Registrar(sessions, clock, extracted_folder=config.storage_extracted_dir),
        reporter=reporter,
        limits=Limits(
            max_archive_bytes=config.max_archive_bytes,
            max_member_bytes=config.max_member_bytes,
            max_members=config.max_members,
            max_compression_ratio=config.max_compression_ratio,
        ),
        timing=timing,
        emit=emit,
    )
    policy = RetryPolicy(config.max_retry_attempts, config.retry_base_delay_seconds)
    rescuing = Rescuing(
        volume=volume,
        sessions=sessions,
        rescuer=Rescuer(sessions, clock, policy, batch_time=batch_time),
        instance=instance,
        timing=timing,
        emit=emit,
    )
    if instance.slots is None:
        raise RuntimeError("the instance must be entered before the service is composed")
    bell = Bell()
    return Daemon(
        intake=intake,
        closing=Closing(volume, Summariser(sessions, clock), reporter, emit),
        rescuing=rescuing,
        supervisor=Supervisor(
            plan=Supervision(
                config.worker_processes, instance.owner, timedelta(seconds=config.file_processing_timeout)
            ),
            spawn=partial(spawn_worker, config, instance.slots_path, talk),
            settle=rescuing.settle_dead_worker,
            slots=instance.slots,
            clock=clock,
            emit=emit,
        ),
        make_watch=partial(Watch, volume.uploads),
        engine=at_hand.engine,
        sessions=sessions,
        volume=volume,
        clock=clock,
        rhythm=Rhythm(timedelta(seconds=scan_seconds), lease_life, timedelta(seconds=config.shutdown_grace_seconds)),
        owner=instance.owner,
        emit=emit,
        tally=tally,
        finished=bell,
    )


def spawn_worker(config: Config, slots_path: Path, talk: bool, slot: int, owner: str) -> tuple[BaseProcess, Connection]:
    """
    Start a worker process: a fresh interpreter, since a fork of a process with threads is not to be trusted.

    `talk` says whether it logs to the console too.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=run_worker,
        args=(config, slots_path, talk, slot, owner, theirs),
        name=f"inbox-worker-{slot}",
        daemon=False,
    )
    process.start()
    theirs.close()
    return process, ours


def run_worker(config: Config, slots_path: Path, talk: bool, slot: int, owner: str, connection: Connection) -> None:
    """Be a worker process. Signals are the supervisor's business; a handler's prints must not mix with log lines."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # not SIG_IGN: that would be inherited by what a handler starts
    logger = setup_logger(LOGGER, config, console=sys.stdout if talk else None)
    sys.stdout = sys.stderr
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
    worker.run()
    close(engine)


def file_for_handler(base: Path, claimed: ClaimedFile) -> File:
    """Return the file as its handler sees it."""
    path = base / claimed.file_path
    return File(
        path=path,
        name=claimed.file_name,
        member_path=claimed.member_path,
        file_type=get_file_type(path),
        size_bytes=claimed.size_bytes,
        sha256=claimed.sha256,
        doc_id=claimed.doc_id,
        batch_id=claimed.batch_id,
        run_id=claimed.run_id,
        attempt=claimed.attempt,
    )


class Stop:
    """SIGTERM and SIGINT ask for an orderly end; the second one ends the process at once."""

    def __init__(self) -> None:
        self.reason = ""
        self._bell = Bell()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)

    def is_asked(self) -> bool:
        return bool(self.reason)

    def wait(self) -> None:
        while not self.is_asked():
            self._bell.wait(3600)

    def _asked(self, number: int, _frame: object) -> None:
        if self.reason:
            for child in multiprocessing.active_children():
                child.kill()
            sys.stderr.write("inbox: ended by a second signal\n")
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.reason = signal.Signals(number).name
        self._bell.ring()


def _patiently(prepare: Callable[[Engine], object]) -> Callable[[Engine], object]:
    logger = logging.getLogger(LOGGER)
    said: list[str] = []

    def say(details: dict[str, object]) -> None:
        text = str(details.get("exception", ""))
        if text not in said:
            said.append(text)
            logger.warning("waiting for the database: %s", text)

    return retry_with_backoff(
        max_attempts=None,
        base_delay=0.5,
        max_delay=10.0,
        retryable_exceptions=(DatabaseUnavailableError,),
        on_backoff=say,
    )(prepare)
