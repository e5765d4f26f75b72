"""The settings: loaded from the environment, checked as a whole, never showing a secret."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inbox.config import default_worker_processes, load_config
from inbox.core.errors import ConfigurationError, UnsafePathError
from inbox.urls import build_database_url

pytestmark = pytest.mark.usefixtures("bare_environment")

DEFAULTS = {
    "DATABASE_MAX_CONNECTIONS": 10,
    "DATABASE_TIMEOUT": 30.0,
    "STORAGE_BASE_PATH": "/shared",
    "STORAGE_UPLOADS_DIR": "uploads",
    "STORAGE_EXTRACTED_DIR": "extracted",
    "MAX_RETRY_ATTEMPTS": 3,
    "RETRY_BASE_DELAY_SECONDS": 2.0,
    "BATCH_PROCESSING_TIMEOUT": 1800.0,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
    "LOG_FILE_PATH": "/shared/logs/worker.log",
    "SETTLE_SECONDS": None,
    "SCAN_INTERVAL_SECONDS": None,
    "MAX_ARCHIVE_BYTES": 10 * 1024**3,
    "MAX_MEMBER_BYTES": 2 * 1024**3,
    "MAX_MEMBERS": 200_000,
    "MAX_COMPRESSION_RATIO": 200,
    "FILE_PROCESSING_TIMEOUT": 300.0,
    "LEASE_SECONDS": 60.0,
    "HANDLERS": [],
    "HANDLER_URL": "",
    "AFTER_SUCCESS": "move",
    "HTTP_HOST": "127.0.0.1",
    "HTTP_PORT": 8080,
}


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_default(name, value):
    """
    Without any setting each value is the documented one.
    """
    assert value == load_config().redacted()[name]


def test_defaults_that_depend_on_the_machine():
    """
    There are as many workers as cores, and the embedded database lies under the storage base.
    """
    config = load_config()

    assert len(os.sched_getaffinity(0)) == config.worker_processes == default_worker_processes()
    assert "sqlite:////shared/.inbox/inbox.db" == config.database_url


def test_environment_is_read(monkeypatch):
    """
    Each setting comes from the variable of its name, in the type it should have; an empty one counts as unset.
    """
    monkeypatch.setenv("MAX_RETRY_ATTEMPTS", "7")
    monkeypatch.setenv("SETTLE_SECONDS", "0.5")
    monkeypatch.setenv("HANDLERS", "one, two.three ,")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("LOG_FORMAT", "TEXT")
    monkeypatch.setenv("HTTP_PORT", "")

    config = load_config()

    assert (7, 0.5, ("one", "two.three")) == (config.max_retry_attempts, config.settle_seconds, config.handlers)
    assert ("DEBUG", "text", 8080) == (config.log_level, config.log_format, config.http_port)


def test_env_file_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    """
    A `.env` in the working directory is read, and a variable of the environment has the last word.
    """
    (tmp_path / ".env").write_text("MAX_MEMBERS=11\nLEASE_SECONDS=22\n")
    monkeypatch.setenv("LEASE_SECONDS", "33")

    config = load_config()

    assert (11, 33.0) == (config.max_members, config.lease_seconds)


def test_env_file_that_cannot_be_read_is_explained(tmp_path):
    """
    A `.env` that is no text is a problem with its mend, not a traceback.
    """
    (tmp_path / ".env").write_bytes(b"MAX_MEMBERS=\xff")

    with pytest.raises(ConfigurationError) as refused:
        load_config()

    assert (".env: cannot be read: not text; mend it, or start in another folder",) == refused.value.problems


def test_log_file_follows_the_storage(base, monkeypatch):
    """
    Unset, the log file lies under the storage base; a dash means none, and a tilde the home.
    """

    def log_file(value):
        monkeypatch.setenv("LOG_FILE_PATH", value)
        return load_config().log_file_path

    assert base / "logs" / "worker.log" == log_file("")
    assert log_file("-") is None
    assert Path.home() / "x.log" == log_file("~/x.log")


def test_every_bad_value_is_named_at_once(monkeypatch, tmp_path):
    """
    All values that cannot be used are named by their variables in one error, without repeating what was given.
    """
    bad = {
        "MAX_RETRY_ATTEMPTS": "none",
        "HTTP_PORT": "99999",
        "LOG_FORMAT": "xml",
        "STORAGE_UPLOADS_DIR": "../up",
        "HANDLER_URL": "ftp://hunter2",
        "DATABASE_URL": "mysql://hunter2@host/name",
        "DATABASE_PASSWORD_FILE": str(tmp_path / "missing"),
        "STORAGE_EXTRACTED_DIR": "receipts",
    }
    for name, value in bad.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        load_config()

    assert bad.keys() == {problem.partition(":")[0] for problem in refused.value.problems}
    assert "hunter2" not in str(refused.value.problems)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "1e300"),
        ("LEASE_SECONDS", "0.5"),
        ("SETTLE_SECONDS", "0"),
        ("DATABASE_TIMEOUT", "nan"),
        ("RETRY_BASE_DELAY_SECONDS", "-1"),
        ("RETRY_BASE_DELAY_SECONDS", "inf"),
        ("MAX_COMPRESSION_RATIO", "inf"),
        ("HANDLER_URL", "http://"),
        ("HANDLER_URL", "http://host:port/"),
    ],
)
def test_value_that_leads_nowhere_is_refused(monkeypatch, name, value):
    """
    A time that no date can hold, a limit that limits nothing, and a URL of no server are refused by name.
    """
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        load_config()

    assert [name] == [problem.partition(":")[0] for problem in refused.value.problems]


@pytest.mark.parametrize("name", ["uploads", "processed", "quarantine", "receipts", "logs"])
def test_folders_cannot_share_a_name(monkeypatch, name):
    """
    Extracted files cannot lie in a folder that has another use.
    """
    monkeypatch.setenv("STORAGE_EXTRACTED_DIR", name)

    with pytest.raises(ConfigurationError) as refused:
        load_config()

    assert refused.value.problems[0].startswith("STORAGE_EXTRACTED_DIR: ")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgresql://u:p@h:1/d", "postgresql+psycopg2://u:p@h:1/d"),
        ("postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_url_gets_the_driver_that_is_installed(given, url):
    """
    What people write as a PostgreSQL URL means the installed driver; SQLite stays as it is.
    """
    assert url == build_database_url(given).render_as_string(hide_password=False)


@pytest.mark.parametrize(
    "given", ["mysql://h/d", "postgresql+asyncpg://u:secret@h/d", "no url, but a secret", "://secret"]
)
def test_unusable_url_is_explained_without_repeating_it(given):
    """
    A URL that is none, or of another database, is refused without showing it, since it may hold a password.
    """
    with pytest.raises(ValueError, match="DATABASE_URL") as refused:
        build_database_url(given)

    assert "secret" not in str(refused.value)


def test_url_is_built_from_parts(monkeypatch, tmp_path):
    """
    Host, port, user, name and a password from a secret's file make the URL; strange characters are escaped.
    """
    secret = tmp_path / "password"
    secret.write_text("p@ss/word\n")
    for name, value in (
        ("HOST", "db"),
        ("PORT", "5433"),
        ("USER", "me"),
        ("NAME", "box"),
        ("PASSWORD_FILE", str(secret)),
    ):
        monkeypatch.setenv(f"DATABASE_{name}", value)

    assert "postgresql+psycopg2://me:p%40ss%2Fword@db:5433/box" == load_config().database_url


def test_whole_url_wins_over_its_parts(monkeypatch, tmp_path):
    """
    A URL, given or in a file, is used as it is when there are parts too.
    """
    secret = tmp_path / "url"
    secret.write_text("postgresql://u:p@h/d\n")
    monkeypatch.setenv("DATABASE_HOST", "elsewhere")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))

    assert "postgresql+psycopg2://u:p@h/d" == load_config().database_url


def test_secret_may_be_named_in_the_env_file(tmp_path):
    """
    A secret's file is found through `.env` too, and what stands there is no silent fallback to the embedded database.
    """
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
    (tmp_path / ".env").write_text(f"DATABASE_URL_FILE={tmp_path}/url\n")

    assert "postgresql+psycopg2://u:p@h/d" == load_config().database_url


def test_storage_path_stays_below_the_base(base):
    """
    A path below the storage base is returned absolute, one that leaves it is refused.
    """
    config = load_config()

    assert str(base / "uploads" / "a.zip") == config.get_storage_path("uploads/a.zip")
    with pytest.raises(UnsafePathError):
        config.get_storage_path("../elsewhere")
    with pytest.raises(UnsafePathError):
        config.get_storage_path("/etc/passwd")


def test_settings_do_not_change(base):
    """
    Settings are read once; nobody changes them afterwards.
    """
    config = load_config()

    with pytest.raises(ValueError, match="frozen"):
        config.max_members = 1


def test_mistake_gets_one_line_and_no_traceback(base):
    """
    On the command line a bad setting is one line that names it, and exit status 2.
    """
    done = subprocess.run(
        [sys.executable, "-m", "inbox", "config"],
        env={**os.environ, "HTTP_PORT": "none", "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == done.returncode
    assert done.stderr.startswith("inbox: HTTP_PORT: ")
    assert 1 == done.stderr.count("\n")
