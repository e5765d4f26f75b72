"""Unpacking: an unpacker process, from its start in a fresh interpreter to its end."""

import ctypes
import os
import signal
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from inbox.app.mounting import require_before_connecting
from inbox.app.processes import in_own_process, show_as, spawn, wait_for_volume
from inbox.app.values import terms_of, timing_of
from inbox.config import Config
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.pipeline.claiming import Claimer
from inbox.pipeline.registering import Registrar
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.runner.taking import Taker
from inbox.pipeline.runner.unpacking import Unpacker
from inbox.pipeline.unpackers.process import Link, work_off
from inbox.utils.clock import SystemClock
from inbox.utils.volume import Volume

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


def spawn_unpacker(config: Config, volume: Volume, talk: bool, seat: int, owner: str) -> tuple[BaseProcess, Connection]:
    """
    Start an unpacker process; `talk` says whether it logs to the console too.

    To be called in a thread that outlives the process: its end is the process's end.
    """
    arguments = (config, volume, talk, seat, owner, os.getpid())
    return spawn(run_unpacker, *arguments, name=f"inbox-unpacker-{seat}", owner=owner)


def run_unpacker(  # noqa: PLR0917 - what a fresh interpreter needs to know
    config: Config, volume: Volume, talk: bool, seat: int, owner: str, parent: int, connection: Connection
) -> None:
    """Be an unpacker process, and end with 0 when told to drain, else with 1 and the reason in the log."""
    end_with(parent)
    show_as("inbox-unpacker")
    with in_own_process(config, volume, owner=owner, talk=talk, called=f"unpacker {seat}"):
        _work(config, volume, owner, Link(connection))


def end_with(parent: int) -> None:
    """
    Have the kernel end this process when the one that started it is gone.

    A decoder that hangs hears nothing, and would keep the drop's lock for ever (prctl(2), PR_SET_PDEATHSIG).
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def _work(config: Config, volume: Volume, owner: str, link: Link) -> None:
    clock = SystemClock()
    if not wait_for_volume(volume, is_draining=link.is_draining, wait=time.sleep):
        return
    engine = create_engine(config.model_copy(update={"database_max_connections": 2}), makes_file=False)
    require_before_connecting(engine, volume)
    sessions = Sessions(get_session_factory(engine))
    timing = timing_of(config)
    taker = Taker(
        volume=volume,
        claimer=Claimer(sessions, clock, owner=owner, life=timedelta(seconds=config.lease_seconds)),
        unpacker=Unpacker(
            volume=volume,
            sessions=sessions,
            clock=clock,
            registrar=Registrar(sessions, clock, extracted_folder=config.storage_extracted_dir),
            terms=terms_of(config),
            timing=timing,
            emit=link.say,
        ),
        reporter=Reporter(sessions, volume, clock, after_success=config.after_success),
        emit=link.say,
        should_stop=link.is_draining,
        on_step=link.on_step,
    )
    try:
        work_off(link, taker.take)
    finally:
        close(engine)
