"""The database of the fleet: where it lies, how the audit reads it, and what harm may be done to it."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg2
from dropping import Steps
from postgres import FAST, Server, own_server

DURABLE: Final = FAST | {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
LOCK: Final = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


class Sqlite:
    """The embedded database, on the volume."""

    kind = "sqlite"
    url = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds, times as nanoseconds. Raises OSError while the database does not answer."""
        try:
            with closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, timeout=1)) as connection:
                yield from connection.execute(query)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    def nanoseconds(self, column: str) -> str:
        return column

    def faults(self) -> dict[str, float]:
        return {"database locked": 3.0}

    def harm(self, fault: str, chance: random.Random) -> Steps:
        assert "database locked" == fault
        seconds = chance.uniform(1.0, 7.0)
        with subprocess.Popen(
            [sys.executable, "-c", LOCK, str(self.path), str(seconds)], stderr=subprocess.DEVNULL
        ) as holder:
            while holder.poll() is None:
                yield 0.2


class Postgresql:
    """A server of its own, with a database that the fleet shares."""

    kind = "postgresql"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.create_database()
        self._name = self.url.rpartition("/")[2]

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds, times as nanoseconds. Raises OSError while the database does not answer."""
        try:
            url = self.url.replace("postgresql+psycopg2", "postgresql")
            with closing(psycopg2.connect(url, connect_timeout=2)) as connection, connection.cursor("audit") as cursor:
                cursor.itersize = 10_000
                cursor.execute(query)
                yield from cursor
        except psycopg2.Error as error:
            raise OSError(str(error)) from error

    def nanoseconds(self, column: str) -> str:
        return f"(extract(epoch from {column}) * 1000000)::bigint * 1000"

    def faults(self) -> dict[str, float]:
        return {"connections ended": 4.0, "database restarted": 1.0, "database crashed": 1.0, "database refuses": 1.0}

    def harm(self, fault: str, chance: random.Random) -> Steps:
        match fault:
            case "connections ended":
                share = chance.choice((0.2, 0.5, 1.0))
                self.server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    f" WHERE datname = '{self._name}' AND application_name = 'inbox' AND random() < {share}"
                )
            case "database restarted" | "database crashed":
                self.server.local.stop(signal.SIGINT if fault == "database restarted" else signal.SIGQUIT)
                yield chance.uniform(0.0, 4.0)
                self.server.local.start()
            case "database refuses":
                self.server.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS false')
                self.server.execute(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'"
                )
                yield chance.uniform(1.0, 5.0)
                self.server.execute(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS true')
        yield 0.0


Database = Sqlite | Postgresql


@contextmanager
def database_of(kind: str, base: Path) -> Iterator[Database]:
    if kind == "sqlite":
        yield Sqlite(base / ".inbox" / "inbox.db")
        return
    with own_server(DURABLE) as server:
        yield Postgresql(server)


def nanoseconds_of(stored: object) -> int | None:
    """Return a time as either database gives it, in nanoseconds since the epoch."""
    if stored is None or isinstance(stored, int):
        return stored
    since = datetime.fromisoformat(str(stored)).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1000
