"""Services that are stopped (SIGSTOP) and go on, wholly or in part, as a frozen container or a debugger does it."""

import os
import signal
import sqlite3
from contextlib import closing, suppress

from sqlalchemy import create_engine, make_url, text


def members_of(service) -> list[int]:
    """Return the process ids of a service and all it has started, the service first."""
    return [service.process.pid, *service.children()]


def send(processes, number) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def pause(processes, database_url) -> None:
    """
    Stop processes, at a moment in which none of them has a transaction open.

    One that has keeps its locks until the database gives up on it, which is another matter.
    """
    while True:
        send(processes, signal.SIGSTOP)
        if not is_anybody_in_a_transaction(database_url):
            return
        go_on(processes)


def is_anybody_in_a_transaction(database_url) -> bool:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(url.database, timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False
    engine = create_engine(url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
    try:
        with engine.connect() as connection:
            return connection.execute(text(query)).scalar_one() > 0
    finally:
        engine.dispose()


def go_on(processes) -> None:
    send(processes, signal.SIGCONT)
