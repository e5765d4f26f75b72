"""Serving: the whole service, put together from plain values and run until it is asked to stop."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from inbox.app.mounting import hold_log, keep_log_to, mounted, require_before_connecting
from inbox.app.opening import (
    LOGGER,
    Opened,
    handler_settings,
    locality_of,
    opened,
    patiently,
    refuse_to_forget,
    unannounced_on,
    volume_of,
)
from inbox.app.stopping import Stop
from inbox.app.unpacking import spawn_unpacker
from inbox.app.values import file_for_handler, quiet_of, timing_of
from inbox.app.working import spawn_worker
from inbox.config import Config
from inbox.core.errors import DatabaseUnavailableError, StorageError
from inbox.core.logging import setup_logger
from inbox.database.connection import Sessions
from inbox.domain import ClaimedFile
from inbox.events import Event, ServiceStarted, ServiceStopped, ServiceStopping
from inbox.handlers.registry import load_handlers
from inbox.pipeline.claiming import LockedOut
from inbox.pipeline.dispatching.supervising import Supervision, Supervisor
from inbox.pipeline.instances import Instance, this_owner
from inbox.pipeline.observing import Observer
from inbox.pipeline.reoffering import Reoffering
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.rescuing import Rescuer, RetryPolicy
from inbox.pipeline.runner.closing import Closing
from inbox.pipeline.runner.intake import Intake
from inbox.pipeline.runner.rescue import Rescuing
from inbox.pipeline.settling import Settler
from inbox.pipeline.summarising import Summariser
from inbox.pipeline.unpackers.supervising import UnpackerPlan, UnpackerProcesses
from inbox.pipeline.watching import Watch
from inbox.service.daemon import Daemon, Rhythm, Tally
from inbox.service.folding import Folding
from inbox.service.health import Probes
from inbox.service.narrating import narrator
from inbox.service.server import ProbeServer
from inbox.urls import redact_url
from inbox.utils.clock import Bell, SystemClock

SCAN_SECONDS: Final = {"local": 15.0, "network": 5.0}
ONCE_SCAN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `run` came to; `stopped` says that a signal ended it."""

    failed: int
    incomplete: Mapping[str, str]
    """Drops that stay in the uploads, each with the reason."""
    stopped: bool

    @property
    def is_well(self) -> bool:
        return not self.failed and not self.incomplete and not self.stopped


def serve(config: Config, *, once: bool, on_progress: Callable[[Sessions], None] | None = None) -> Verdict:
    """
    Run the service until SIGTERM or SIGINT, or with `once` until nothing is left to do.

    With `on_progress` (for `once`) that is called several times a second, and log lines go to the file alone. A second
    signal ends it at once. A database that does not answer at the start is waited for, but not with `once`. Raises
    ConfigurationError, DatabaseRefusedError and DatabaseUnavailableError before anything has started.
    """
    stop = Stop()
    clock = SystemClock()
    with ExitStack() as stack:
        logger = setup_logger(LOGGER, config, console=None if on_progress else "stdout")
        hold_log(volume_of(config), logger)
        narrate = stack.enter_context(
            Folding(narrator(logger), clock, same_cause=config.log_same_cause, by="the service")
        )
        tally = Tally()

        def emit(event: Event) -> None:
            tally(event)
            narrate(event)

        load_handlers(handler_settings(config))  # a mistake in a handler module shows now, not in a worker
        probes = Probes()
        if config.http_port and not once:
            server = ProbeServer(config.http_host, config.http_port, live=probes.live, ready=probes.ready)
            server.start()
            stack.callback(server.stop)
        pause = None if once else stop.pause
        refuse_to_forget(config)
        try:
            connected = stack.enter_context(opened(config, migrate=config.database_migrate, pause=pause))
            at_hand = patiently(lambda: mounted(connected, clock), pause)
            instance = patiently(lambda: stack.enter_context(_instance(at_hand)), pause)
        except (DatabaseUnavailableError, StorageError):
            if not stop.is_asked():
                raise
            emit(ServiceStopping(stop.reason))
            return Verdict(0, {}, stopped=True)
        keep_log_to(at_hand.volume, logger)
        require_before_connecting(at_hand.engine, at_hand.volume)
        began = clock.monotonic()
        daemon = compose(at_hand, instance, emit, tally, once=once, talk=on_progress is None)
        emit(
            ServiceStarted(
                str(config.storage_base_path), redact_url(config.database_url), config.worker_processes, instance.owner
            )
        )
        with daemon.running():
            probes.service = daemon
            if once:
                daemon.wait_until_done(stop.is_asked, on_progress or (lambda _sessions: None))
            else:
                stop.wait()
            stopped = stop.is_asked()
            if stopped:
                emit(ServiceStopping(stop.reason))
        probes.service, probes.otherwise = None, "stopping"
        instance.leaves_leases = not daemon.holds_nothing()
        emit(ServiceStopped(round(clock.monotonic() - began, 1)))
    return Verdict(tally.failed, daemon.incomplete_drops(), stopped)


def _instance(at_hand: Opened) -> Instance:
    return Instance(
        at_hand.volume.instances, this_owner(at_hand.volume.instances), workers=at_hand.config.worker_processes
    )


def compose(
    at_hand: Opened, instance: Instance, emit: Callable[[Event], None], tally: Tally, *, once: bool, talk: bool = True
) -> Daemon:
    """Put the service together from plain values."""
    config, sessions, volume, clock = at_hand.config, at_hand.sessions, at_hand.volume, SystemClock()
    locality = locality_of(config)
    timing = timing_of(config, once=once)
    scan_seconds = config.scan_interval_seconds or (ONCE_SCAN_SECONDS if once else SCAN_SECONDS[locality])
    reporter = Reporter(sessions, volume, clock, after_success=config.after_success)
    policy = RetryPolicy(config.max_retry_attempts, config.retry_base_delay_seconds)
    registry = load_handlers(handler_settings(config))

    def handler_of(claimed: ClaimedFile) -> tuple[str | None, str | None]:
        spec = registry.choose(file_for_handler(config.storage_base_path, claimed))
        return (spec.name, spec.version) if spec else (None, None)

    reoffering = Reoffering(sessions, clock, emit, versions=registry.versions(), handler_of=handler_of)
    rescuing = Rescuing(
        volume=volume,
        sessions=sessions,
        clock=clock,
        rescuer=Rescuer(sessions, clock, policy, batch_time=timing.batch_time, handler_of=handler_of),
        instance=instance,
        observer=Observer(sessions, clock, life=timing.lease_life),
        timing=timing,
        emit=emit,
    )
    intake = Intake(
        volume=volume,
        sessions=sessions,
        clock=clock,
        settler=Settler(
            quiet_of(config, locality),
            clock,
            trust_age=locality == "local",
            take_closed=locality == "local" and config.take_when_closed,
        ),
        unpackers=UnpackerProcesses(
            plan=UnpackerPlan(
                config.unpacker_processes, instance.owner, timedelta(seconds=config.max_extraction_seconds)
            ),
            spawn=partial(spawn_unpacker, config, volume, talk),
            settle=rescuing.settle_dead_unpacker,
            clock=clock,
            emit=emit,
        ),
        reporter=reporter,
        timing=timing,
        emit=emit,
        quarantines_not_archives=config.not_archives == "quarantine",
    )
    if instance.slots is None:
        raise RuntimeError("the instance must be entered before the service is composed")
    bell = Bell()
    return Daemon(
        intake=intake,
        closing=Closing(
            volume, Summariser(sessions, clock), reporter, emit, LockedOut(clock, patience=timing.lease_life)
        ),
        rescuing=rescuing,
        supervisor=Supervisor(
            plan=Supervision(
                config.worker_processes,
                instance.owner,
                timedelta(seconds=config.file_processing_timeout),
                silence=timing.lease_life,
            ),
            spawn=partial(spawn_worker, config, volume, instance.slots_path, talk),
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
        rhythm=Rhythm(
            timedelta(seconds=scan_seconds),
            timing.lease_life,
            timedelta(seconds=config.shutdown_grace_seconds),
            shortest_scan=timedelta(seconds=SCAN_SECONDS["network"]),
        ),
        owner=instance.owner,
        emit=emit,
        tally=tally,
        finished=bell,
        unannounced=unannounced_on(config),
        at_start=reoffering.reoffer if config.retry_on_new_version else None,
    )
