"""The command line, as its users type it: plain when piped, JSON when asked, one clear line for a mistake."""

import json
import logging
import subprocess
import sys
from io import StringIO

import pytest
from databases import fill_batch
from pipeline_parts import Clock, House
from rich.console import Console
from typer.testing import CliRunner

from inbox.cli import screen, tailing
from inbox.cli.commands import app
from inbox.config import Config
from inbox.database.connection import get_session
from inbox.database.migrating import HEAD
from inbox.database.models import FileExtraction
from inbox.utils.volume import Volume

QUESTIONS = (("check",), ("status",), ("retry", "a.zip"))
COMMANDS = ("run", "status", "retry", "explain", "check", "config", "logs", "db")


@pytest.fixture
def inbox(monkeypatch, tmp_path, storage, database_url):
    """Return a function that runs a command on a fresh storage and database: exit code, output, errors."""
    for name in Config.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORAGE_BASE_PATH", str(storage))
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def done(house, inbox):
    """One batch of two files, one of which failed."""
    house.drop(members=["a.txt", "b.txt", "__MACOSX/._a"])
    house.take()
    house.work(failing={"b.txt"})
    house.closing.round()
    return house.heard(type(house.events[0]))[0].batch_id


def table(output):
    return [line.split("\t") for line in output.splitlines()]


def test_help_names_every_command(inbox):
    """
    The help lists each command with a line of its own.
    """
    result = inbox("--help")

    assert 0 == result.exit_code
    assert all(f" {command} " in result.output for command in COMMANDS)


def test_status_lists_batches(inbox, done):
    """
    Without a name the newest batches are listed, tab-separated in a pipe, as data with --json.
    """
    header, row = table(inbox("status").output)
    listed = json.loads(inbox("status", "--json").output)["batches"]

    assert [done[:12], "drop.zip", "partial", "3", "1", "1", "1", "0"] == row[:8]
    assert "batch" == header[0]
    assert [(done, "partial", 3)] == [(batch["batch_id"], batch["state"], batch["members"]) for batch in listed]


@pytest.mark.parametrize("how", ["drop.zip", "beginning"])
def test_status_shows_one_batch(inbox, done, how):
    """
    One batch is shown with its counts and its failed files with their reasons.
    """
    name = done[:8] if how == "beginning" else how
    shown = inbox("status", name).output
    data = json.loads(inbox("status", name, "--json").output)

    assert "b.txt\t1\tPARSE_ERROR: broken" in shown
    assert "succeeded\t1" in shown
    assert [("b.txt", "PARSE_ERROR", 1)] == [
        (failure["path"], failure["error_type"], failure["attempts"]) for failure in data["failures"]
    ]


def test_empty_inbox_has_nothing_to_show(inbox):
    """
    Without any batch the list is empty, for people and for programs.
    """
    assert 1 == len(table(inbox("status").output))
    assert {"batches": []} == json.loads(inbox("status", "--json").output)


def test_unknown_batch_is_one_clear_line(inbox, done):
    """
    A name that fits nothing, or several batches, ends with 2 and one line that says what to do.
    """
    fill_batch(f"{done[:3]}0", 1)
    unknown, ambiguous = inbox("status", "nothing"), inbox("status", done[:3])

    assert (2, 2) == (unknown.exit_code, ambiguous.exit_code)
    assert "inbox: no batch has this id" in unknown.stderr
    assert "say which" in ambiguous.stderr
    assert 1 == unknown.stderr.count("\n")


def test_retry_opens_a_new_run(inbox, done):
    """
    A batch's failed files are offered again, and the answer says how many.
    """
    first, second = inbox("retry", "drop.zip"), inbox("retry", "drop.zip")

    assert (0, "1 files of drop.zip will be tried again in a new run\n") == (first.exit_code, first.output)
    assert 2 == second.exit_code
    assert "nothing has failed there" in second.stderr


def test_retry_as_data(inbox, done):
    """
    With --json the answer to a retry is data.
    """
    with get_session() as session:
        doc_id = session.query(FileExtraction).filter_by(status="failed").one().doc_id

    assert {"batch_id": done, "drop": "drop.zip", "files": 1, "archive_offered_again": False} == json.loads(
        inbox("retry", doc_id, "--json").output
    )


def test_check_finds_everything_in_order(inbox):
    """
    On a good machine each part is found to be in order, and the exit status is 0.
    """
    Config().validate()
    result = inbox("check", "--json")
    verdicts = {finding["about"]: finding["verdict"] for finding in json.loads(result.output)["findings"]}

    assert 0 == result.exit_code
    assert {"settings", "folders", "file system", "disk", "database", "schema", "handlers"} <= verdicts.keys()
    assert "bad" not in verdicts.values()


def test_asking_the_wrong_folder_does_not_make_it(inbox, monkeypatch, tmp_path):
    """
    Nothing but a start makes folders: where a volume is not mounted, a question must not look like one that is.
    """
    empty, missing = tmp_path / "unmounted", tmp_path / "a" / "typo"
    empty.mkdir()
    monkeypatch.delenv("DATABASE_URL", raising=False)
    told = [inbox(*words, "--storage", str(folder)) for folder in (empty, missing) for words in QUESTIONS]

    assert ([], False) == (list(empty.iterdir()), missing.parent.exists())
    assert [0, 2, 2] * 2 == [result.exit_code for result in told]
    assert f"{empty} has no uploads/, extracted/" in told[0].output
    assert f"{missing} is not there" in told[3].output
    assert all("--storage" in result.stderr for result in told if result.exit_code)


def test_check_names_each_bad_part_with_its_mend(inbox, monkeypatch, tmp_path):
    """
    What cannot work is named part by part, each with what to do, and the exit status is 1.
    """
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STORAGE_BASE_PATH", str(tmp_path / "file"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/x")
    monkeypatch.setenv("HANDLERS", "no_such_module")
    result = inbox("check", "--json")
    bad = {
        finding["about"]: finding for finding in json.loads(result.output)["findings"] if finding["verdict"] == "bad"
    }

    assert 1 == result.exit_code
    assert {"folders", "database", "handlers"} == bad.keys()
    assert all(finding["mend"] for finding in bad.values())
    assert "hunter2" not in result.output


def test_check_of_bad_settings(inbox, monkeypatch):
    """
    Settings that cannot be read are named, and nothing else is looked at.
    """
    monkeypatch.setenv("HTTP_PORT", "none")
    result = inbox("check")

    assert 1 == result.exit_code
    assert "HTTP_PORT" in result.output
    assert "settings\tHTTP_PORT" in result.output or "bad\tsettings" in result.output


def test_check_of_a_schema_to_come(inbox, monkeypatch, tmp_path):
    """
    A database that is not there yet, or has no schema, is no trouble unless migrations are switched off.
    """
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/new/inbox.db")
    assert "will be made at the first start" in inbox("check").output
    inbox("db", "upgrade")
    (tmp_path / "new" / "inbox.db").unlink()
    (tmp_path / "new" / "inbox.db").write_bytes(b"")
    assert "the next start brings it" in inbox("check").output
    monkeypatch.setenv("DATABASE_MIGRATE", "false")
    result = inbox("check")

    assert 1 == result.exit_code
    assert "inbox db upgrade" in result.output


def test_config_is_shown_without_secrets(inbox, monkeypatch):
    """
    Every setting is printed as it is in force, and no secret.
    """
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db/x")
    monkeypatch.setenv("HANDLERS", "one,two")
    lines = dict(line.split("=", 1) for line in inbox("config").output.splitlines())

    assert {name.upper() for name in Config.model_fields} == lines.keys()
    assert ("one,two", "postgresql+psycopg2://me:***@db/x") == (lines["HANDLERS"], lines["DATABASE_URL"])
    assert lines.keys() == json.loads(inbox("config", "--json").output).keys()


def test_schema_is_upgraded(inbox, monkeypatch, tmp_path):
    """
    A new database gets its schema, and the answer is its revision; commands before that say what to do.
    """
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/inbox.db")
    before = inbox("status")
    assert not (tmp_path / "inbox.db").exists()
    upgraded, after = inbox("db", "upgrade"), inbox("status")

    assert (2, 0, 0) == (before.exit_code, upgraded.exit_code, after.exit_code)
    assert "inbox db upgrade" in before.stderr
    assert f"the schema is at revision {HEAD}\n" == upgraded.output


@pytest.fixture
def log(storage):
    path = storage / "logs" / "worker.log"
    path.parent.mkdir()
    lines = [
        {"timestamp": "2026-01-01T00:00:00.000Z", "level": level, "message": f"line {number}", "batch_id": batch}
        for number, (level, batch) in enumerate([("INFO", "aaa"), ("ERROR", "bbb"), ("WARNING", "aaa")])
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), [0, 1, 2]),
        (("-n", "1"), [2]),
        (("--batch", "aaa"), [0, 2]),
        (("--level", "warning"), [1, 2]),
        (("--file", "nothing"), []),
    ],
)
def test_log_is_shown_as_asked(inbox, log, options, shown):
    """
    The last lines are shown, of one batch, one file, or a level at least; for people, or as they stand.
    """
    lines = inbox("logs", *options).output.splitlines()
    data = [json.loads(line) for line in inbox("logs", "--json", *options).output.splitlines()]

    assert [f"line {number}" for number in shown] == [line["message"] for line in data]
    assert len(shown) == len(lines)
    assert all(f"line {number}" in line for number, line in zip(shown, lines, strict=True))


def test_log_that_is_not_there_is_explained(inbox, log, monkeypatch):
    """
    No log yet, none by setting, and a level that does not exist each get their own line.
    """
    level = inbox("logs", "--level", "loud")
    log.unlink()
    missing = inbox("logs")
    monkeypatch.setenv("LOG_FILE_PATH", "-")
    none = inbox("logs")

    assert [2, 2, 2] == [result.exit_code for result in (level, missing, none)]
    assert "no such level" in level.stderr
    assert "no log yet" in missing.stderr
    assert "there is no log file" in none.stderr


def test_log_is_followed_until_interrupted(inbox, log, monkeypatch):
    """
    With -f what comes after is shown too, until Ctrl-C, which is no error.
    """
    pauses = []

    def pause():
        pauses.append(1)
        if len(pauses) == 2:
            raise KeyboardInterrupt
        with log.open("a") as file:
            file.write(json.dumps({"timestamp": "t", "level": "INFO", "message": "new"}) + "\n")
        return True

    monkeypatch.setattr(tailing, "_pause", pause)
    result = inbox("logs", "-f", "-n", "1")

    assert 0 == result.exit_code
    assert [True, True] == [
        message in line for message, line in zip(("line 2", "new"), result.output.splitlines(), strict=True)
    ]


def test_terminal_gets_tables(inbox, done, monkeypatch, capsys):
    """
    On a terminal the same answers are tables, and hostile names cannot steer it.
    """
    monkeypatch.setattr(screen.sys.stdout, "isatty", lambda: True, raising=False)
    screen.show_batches([], as_json=False)
    screen.table(("name", "state"), [("a\x1b[2J", "failed")])
    shown = capsys.readouterr().out

    assert "no batches yet" in shown
    assert "\\x1b[2J" in shown
    assert "\x1b[2J" not in shown


def test_progress_is_drawn_on_a_terminal(database, storage, monkeypatch):
    """
    On a terminal `run --once` draws how far each batch is; in a pipe nothing is drawn.
    """

    class Terminal:
        def __init__(self, is_one):
            self.is_one = is_one

        def isatty(self):
            return self.is_one

    house = House(database, Volume.at(storage), Clock())
    house.drop()
    house.take()
    monkeypatch.setattr("rich.progress.get_console", lambda: Console(file=StringIO()))
    with screen.progress_of(Terminal(True), wanted=True) as draw:
        draw(database)
        house.work()
        draw(database)
    with screen.progress_of(Terminal(False), wanted=True) as nothing:
        assert nothing is None


def test_closed_pipe_is_no_error(inbox, done):
    """
    A reader that has seen enough (`| head`) ends the command quietly.
    """
    command = [sys.executable, "-m", "inbox", "status"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()

    assert (0, "") == (process.returncode, errors)


def test_surprise_keeps_its_traceback(inbox, monkeypatch):
    """
    A bug of ours is not dressed up as a user's mistake.
    """

    def fail(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr(screen, "show_config", fail)

    with pytest.raises(ZeroDivisionError):
        inbox("config")
    assert logging.getLogger("inbox") is not None
