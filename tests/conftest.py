"""What every test may ask for: a fresh database of either kind, a folder that plays the shared volume."""

import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
from databases import connected, migrate
from pipeline_parts import Clock, House
from postgres import NoServerError, Server, any_server, own_server

from inbox.config import Config
from inbox.utils.volume import Volume

DATABASES = ("sqlite", "postgresql")

hypothesis.settings.register_profile("untimed", deadline=None)  # how long an example takes is not a test's claim
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption(
        "--database",
        choices=(*DATABASES, "both"),
        default=os.environ.get("TEST_DATABASES", "both"),
        help="run the tests of one database only (also: environment variable TEST_DATABASES)",
    )


def pytest_generate_tests(metafunc):
    """Run each test that uses a database once per kind, in the order of DATABASES."""
    if "database_kind" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--database")
        kinds = DATABASES if wanted == "both" else (wanted,)
        metafunc.parametrize("database_kind", kinds)


def pytest_report_header(config):
    return f"databases: {config.getoption('--database')}"


def skip_unless_in_ci(reason: str) -> None:
    if os.environ.get("CI"):  # there, a green run means that both databases were tested
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_collection_modifyitems(config, items):
    """Where several run them at a time, modules of slow tests come first, or the last of them would run alone."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One PostgreSQL for the whole session; see postgres.py for where it comes from."""
    try:
        with any_server() as server:
            yield server
    except NoServerError as error:
        skip_unless_in_ci(str(error))


@pytest.fixture
def own_postgres_server() -> Iterator[Server]:
    """A PostgreSQL of this test alone, to be stopped and started: `own_postgres_server.local.stop()`, `.start()`."""
    try:
        with own_server() as server:
            yield server
    except NoServerError as error:
        skip_unless_in_ci(str(error))


@pytest.fixture(scope="session")
def postgres_template(postgres_server) -> str:
    """The URL of a migrated PostgreSQL database; nobody writes to it, every test gets a copy."""
    url = postgres_server.create_database()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory) -> Path:
    """A migrated SQLite file; every test gets a copy."""
    path = tmp_path_factory.mktemp("template") / "inbox.db"
    migrate(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def database_url(request, database_kind, tmp_path) -> Iterator[str]:
    """A fresh database with the newest schema and no rows; the test runs once per kind of database."""
    if database_kind == "sqlite":
        path = tmp_path / "database" / "inbox.db"
        path.parent.mkdir()
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create_database(template=request.getfixturevalue("postgres_template"))
    yield url
    server.drop_database(url)


@pytest.fixture
def database(database_url):
    """Sessions on a fresh database; operations without a session use it too."""
    with connected(database_url) as sessions:
        yield sessions


@pytest.fixture
def empty_database_url(request, database_kind, tmp_path) -> Iterator[str]:
    """A fresh database without any schema; the test runs once per kind of database."""
    if database_kind == "sqlite":
        path = tmp_path / "database" / "inbox.db"
        path.parent.mkdir()
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def storage(tmp_path) -> Path:
    """An empty folder that plays the shared volume."""
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def house(database, storage):
    """All stages of one service on a fresh database and volume, with a clock that the test moves."""
    return House(database, Volume.at(storage), Clock())


@pytest.fixture
def unused_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def bare_environment(monkeypatch, tmp_path) -> None:
    """No setting of this machine, and no `.env`, reaches the test."""
    for name in Config.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def base(monkeypatch, tmp_path) -> Path:
    """A storage base that does not exist yet, set in the environment."""
    folder = tmp_path / "shared"
    monkeypatch.setenv("STORAGE_BASE_PATH", str(folder))
    return folder
