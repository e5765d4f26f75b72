"""Secrets: read from variables, `.env` and files, and shown nowhere."""

import pytest

from inbox.config import load_config
from inbox.core.errors import ConfigurationError
from inbox.urls import redact_url

pytestmark = pytest.mark.usefixtures("bare_environment")


def problems():
    with pytest.raises(ConfigurationError) as refused:
        load_config()
    return refused.value.problems


def test_file_of_a_secret_may_be_named_in_env_file(tmp_path):
    """
    A secret's file that `.env` names is read like one that the environment names.
    """
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / ".env").write_text(
        f"DATABASE_HOST=db\nDATABASE_USER=me\nDATABASE_PASSWORD_FILE={tmp_path / 'password'}\n"
    )

    assert "postgresql+psycopg2://me:s3cret@db:5432/inbox" == load_config().database_url


def test_given_secret_wins_over_its_file(monkeypatch, tmp_path):
    """
    A secret that is given itself is used, and its file not even opened.
    """
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/d")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "missing"))

    assert "postgresql+psycopg2://u:p@h/d" == load_config().database_url


def test_unusable_secrets_are_explained(monkeypatch, tmp_path):
    """
    Each file of a secret that cannot be read is named with what to do, next to whatever else is wrong.
    """
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "binary"))
    monkeypatch.setenv("HTTP_PORT", "none")

    url, password, port = problems()

    assert f"DATABASE_URL_FILE: cannot read {tmp_path / 'binary'}: not text; mount the secret there" == url
    assert password.startswith(f"DATABASE_PASSWORD_FILE: cannot read {tmp_path / 'missing'}: No such file")
    assert port.startswith("HTTP_PORT: ")


def test_empty_secret_is_not_taken_for_none(monkeypatch, tmp_path):
    """
    A secret's file without content is a problem, since without a URL another database would be used.
    """
    (tmp_path / "url").write_text("\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))

    assert (f"DATABASE_URL_FILE: {tmp_path / 'url'} is empty; put the secret there",) == problems()


def test_password_without_user_is_explained(monkeypatch):
    """
    A password that no user has would be left out of the URL in silence; the missing user is named instead.
    """
    monkeypatch.setenv("DATABASE_HOST", "db")
    monkeypatch.setenv("DATABASE_PASSWORD", "s3cret")

    (problem,) = problems()

    assert problem.endswith("set DATABASE_USER")
    assert "s3cret" not in problem


def test_secrets_are_shown_nowhere(monkeypatch):
    """
    No password is in the printed settings, in their repr, or in the error for another setting.
    """
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/box?sslpassword=hunter2&sslmode=require")
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    monkeypatch.setenv("HANDLER_URL", "http://me:hunter2@app/files?token=hunter2")
    config = load_config()
    redacted = config.redacted()
    monkeypatch.setenv("HTTP_PORT", "none")

    shown = f"{config!r} {config} {redacted} {problems()}"

    assert "hunter2" not in shown
    assert ("***", "http://***@app/files?***") == (redacted["DATABASE_PASSWORD"], redacted["HANDLER_URL"])
    assert "postgresql+psycopg2://me:***@db/box?sslmode=require&sslpassword=***" == redacted["DATABASE_URL"]


def test_passwords_of_archives_are_lines_of_a_file(monkeypatch, tmp_path):
    """
    Each line is one password, spaces and all, in the file's order; empty lines and repetitions are left out.
    """
    (tmp_path / "passwords").write_bytes("\ufeffhunter2\r\n spaced \n\nhunter2\ngrößer".encode())
    monkeypatch.setenv("ARCHIVE_PASSWORDS_FILE", str(tmp_path / "passwords"))

    assert ("hunter2", " spaced ", "größer") == load_config().read_archive_passwords()


def test_file_of_passwords_may_lie_at_home_and_be_long(monkeypatch, tmp_path):
    """
    A path may begin with `~`, and a thousand passwords are not too many.
    """
    (tmp_path / "passwords").write_bytes(b"".join(b"hunter%d\n" % number for number in range(1000)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ARCHIVE_PASSWORDS_FILE", "~/passwords")

    assert 1000 == len(load_config().read_archive_passwords())


def test_passwords_of_archives_are_shown_nowhere(monkeypatch, tmp_path):
    """
    The printed settings name the file of the passwords, and neither they nor the settings' repr what it holds.
    """
    path = tmp_path / "passwords"
    path.write_text("hunter2")
    monkeypatch.setenv("ARCHIVE_PASSWORDS_FILE", str(path))
    config = load_config()

    assert str(path) == config.redacted()["ARCHIVE_PASSWORDS_FILE"]
    assert "hunter2" not in f"{config!r} {config} {config.redacted()} {config.__dict__}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read {path}: No such file or directory; mount the secret there"),
        (b"\xff\xfe\xff", "cannot read {path}: not text; mount the secret there"),
        (b"\n\n", "{path} is empty; put one password on each line"),
        (
            b"".join(b"hunter%d\n" % number for number in range(1001)),
            "{path} has more than 1,000 passwords; each is tried on an archive",
        ),
    ],
)
def test_unusable_file_of_passwords_is_explained(monkeypatch, tmp_path, content, said):
    """
    A file of passwords that cannot be used is a problem of the settings, and one that becomes so later an error too.
    """
    path = tmp_path / "passwords"
    path.write_text("hunter2")
    monkeypatch.setenv("ARCHIVE_PASSWORDS_FILE", str(path))
    config = load_config()
    path.unlink() if content is None else path.write_bytes(content)

    with pytest.raises(ConfigurationError) as later:
        config.read_archive_passwords()

    expected = f"ARCHIVE_PASSWORDS_FILE: {said.format(path=path)}"
    assert (expected,) == problems()
    assert expected in str(later.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://app:8000/files", "http://app:8000/files"),
        ("http://token@app/files#fragment", "http://***@app/files"),
        ("http://[::1]:8000/x?a=1&b", "http://[::1]:8000/x?***"),
        ("sqlite:////shared/inbox.db", "sqlite:////shared/inbox.db"),
        (
            "postgresql://h/d?password=p&user=u&connect_timeout=3",
            "postgresql://h/d?password=***&user=***&connect_timeout=3",
        ),
        ("hunter2 without a scheme", "***"),
        ("http://[hunter2", "***"),
        ("postgresql://u:hunter2@h:port/d", "***"),
    ],
)
def test_url_is_shown_without_what_may_be_secret(url, shown):
    """
    Where something is stays readable; who asks, and with what, does not.
    """
    assert shown == redact_url(url)
