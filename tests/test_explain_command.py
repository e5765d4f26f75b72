"""`inbox explain`: the verdict on the first line, the same as data, exit statuses, and no trace on the volume."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT, Storage
from typer.testing import CliRunner
from zips import Member, archive

from inbox.cli.commands import app
from inbox.core.errors import WorkerError
from inbox.database.connection import Sessions, close, create_engine, get_session_factory
from inbox.database.models import ProcessingJob

pytestmark = pytest.mark.usefixtures("bare_environment")
LEFT_OPEN = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE processing_jobs SET drop_name = 'changed'")
connection.commit()
os._exit(0)
"""


@pytest.fixture
def inbox(monkeypatch, storage, database_url):
    """Return a function that explains a file of a fresh storage and database: exit status, output, errors."""
    monkeypatch.setenv("STORAGE_BASE_PATH", str(storage))
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("SETTLE_SECONDS", "0.001")

    def run(*arguments):
        result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def listing(folder):
    """Return everything below a folder with what would tell a change; SQLite, as root, renews the owner of its log."""
    return {
        str(path): (status.st_mode, status.st_uid, status.st_ino, status.st_size, status.st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
        for status in [path.lstat()]
    }


def first_line(result):
    return result.output.splitlines()[0]


def names(value):
    """Return every name in nested data."""
    if isinstance(value, dict):
        return set(value) | {name for part in value.values() for name in names(part)}
    return {name for part in value for name in names(part)} if isinstance(value, list) else set()


def test_verdict_stands_on_the_first_line(inbox, house):
    """
    Each verdict is one sentence on the first line, with 0 for what is or would be taken and 1 for the rest.
    """
    house.drop("known.zip", archive(["known.txt"]))
    house.take()
    house.work()
    house.closing.round()
    house.drop("again.zip", archive(["known.txt"]))
    house.drop("new.zip")
    house.drop("cut.zip", archive(["a.txt"])[:-4])
    house.drop("bad.zip", archive(["../up.txt"]))
    house.drop("note.txt", b"hello")
    house.drop("new.zip.part")
    results = {name: inbox(name) for name in house.uploads()}

    assert {
        "again.zip": 0, "new.zip": 0, "cut.zip": 1, "bad.zip": 1, "note.txt": 1, "new.zip.part": 1,
    } == {name: result.exit_code for name, result in results.items()}  # fmt: skip
    assert "would be taken" == first_line(results["new.zip"])
    assert re.fullmatch(
        r"is a duplicate of batch \w{12} \(known.zip, .*\), which is completed", first_line(results["again.zip"])
    )
    assert first_line(results["cut.zip"]).startswith("waits: it begins like a ZIP archive")
    assert first_line(results["bad.zip"]).startswith("would be refused: UNSAFE_PATH A member's name would leave")
    assert "would be left alone: it neither begins nor ends like a ZIP archive" == first_line(results["note.txt"])
    assert first_line(results["new.zip.part"]).startswith("would be left alone: a name like this")


def test_signal_of_a_writer_that_comes_meanwhile_is_ignored(inbox, house):
    """
    The kernel's signal to whoever judges a file that somebody just then opens, which would end the process, is ignored.
    """
    house.drop()
    before = signal.signal(signal.SIGIO, signal.SIG_DFL)
    try:
        inbox("drop.zip")
        during = signal.getsignal(signal.SIGIO)
    finally:
        signal.signal(signal.SIGIO, before)

    assert signal.SIG_IGN == during


def test_missing_file_is_one_clear_line(inbox):
    """
    A file that is not there ends with 2 and one line that says where to look.
    """
    result = inbox("nothing.zip")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "inbox: there is no such file" in result.stderr
    assert 1 == result.stderr.count("\n")


def test_data_has_the_documented_fields(inbox, house):
    """
    With --json each field that the page explains is there, and no other; times are ISO 8601.
    """
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    table = page.partition("| field of an explanation | meaning |")[2].partition("\n\n")[0]
    values = {"file", "folder", "link", "special", "uploads", "below_uploads", "processed", "quarantine", "elsewhere"}
    values |= {"cared_for", "under_way", "recognised", "to_extract"}
    house.drop("bad.zip", archive([Member("a.txt", crc=1), "__MACOSX/._a"]))
    house.clock.go_on(60)
    house.take()
    house.closing.round()
    result = inbox("--json", "--deep", house.volume.quarantine / "bad.zip")
    young = json.loads(inbox("--json", house.drop()).output)
    data = json.loads(result.output)

    assert 1 == result.exit_code
    assert set(re.findall(r"`(\w+)`", table)) - values == names(data) | names(young)
    assert ("refused", "BAD_CRC", "quarantined") == (data["verdict"], data["reason_code"], data["known"]["state"])
    assert re.match(r"\d{4}-\d\d-\d\dT.*\+00:00$", data["changed_at"])


def test_every_code_of_its_own_is_documented():
    """
    Each code that explaining adds to those of drops and archives stands on the page, and no other.
    """
    page = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("## Why does my drop wait?")[2]
    modules = ("pipeline/explaining/judging.py", "utils/drops.py")
    source = "".join((ROOT / "inbox" / name).read_text("utf-8") for name in modules)

    assert set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+|KNOWN|LOCKED|DUPLICATE)"', source)) == set(
        re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    )


def test_first_line_on_the_page_is_what_is_said(inbox, house):
    """
    The verdict that the page shows is printed for such an archive.
    """
    page = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("## Why does my drop wait?")[2]
    house.drop("bad.zip", archive(["../evil.txt"]))

    assert re.search(r"^```text\n(.*)\n```$", page, re.MULTILINE)[1] == first_line(inbox("bad.zip"))


def test_hostile_names_cannot_steer_the_terminal(inbox, house):
    """
    Control characters in names of files and members are shown as escapes.
    """
    house.drop("a\x1b[2J\n.zip", archive([Member("x\x1b[2J"), Member(b"a\0\x1b[2J")]))
    house.drop("b\x1b[2J.zip")
    refused = inbox("a\x1b[2J\n.zip")
    house.take()
    house.work()
    house.closing.round()
    known = inbox(house.drop("again.zip"))

    assert "NUL_IN_NAME" in first_line(refused)
    assert "is a duplicate of batch" in first_line(known)
    assert "\x1b" not in refused.output + known.output
    assert "\\x1b[2J\\n.zip" in refused.output
    assert "(b\\x1b[2J.zip, " in first_line(known)


def test_nothing_changes(inbox, house, tmp_path):
    """
    Asking about every kind of file leaves every file, folder and database as it was, to the nanosecond.
    """
    house.drop("known.zip")
    house.take()
    house.work()
    house.closing.round()
    house.drop("again.zip")
    house.drop("new.zip", archive(["other.txt"]))
    house.drop("note.txt", b"hello")
    (house.volume.uploads / "folder").mkdir()
    before = listing(tmp_path)
    paths = [*house.volume.uploads.iterdir(), house.volume.processed / "known.zip", tmp_path / "missing.zip"]
    results = [inbox("--deep", path) for path in paths]

    assert before == listing(tmp_path)
    assert [0, 0, 0, 1, 1, 2] == sorted(result.exit_code for result in results)


def test_nothing_is_made_where_nothing_is(monkeypatch, tmp_path):
    """
    Without a volume and without a database a file is explained all the same, and neither is made.
    """
    monkeypatch.setenv("STORAGE_BASE_PATH", str(tmp_path / "nowhere" / "shared"))
    (tmp_path / "a.zip").write_bytes(archive(["a.txt"]))
    before = listing(tmp_path)
    result = CliRunner().invoke(app, ["explain", str(tmp_path / "a.zip")])

    assert (0, "would be taken") == (result.exit_code, first_line(result))
    assert "there is no database yet" in result.output
    assert before == listing(tmp_path)


def test_database_that_does_not_answer_is_told(inbox, house, monkeypatch, unused_port):
    """
    Without its database the file is explained, and it is told what could not be asked; no password is.
    """
    house.drop()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:hunter2@127.0.0.1:{unused_port}/x")
    result = inbox("drop.zip")

    assert (0, "would be taken") == (result.exit_code, first_line(result))
    assert "could not be asked whether the content is known: the database does not answer" in result.output
    assert "hunter2" not in result.output


def test_database_that_is_looked_at_cannot_be_written(database_url):
    """
    Whoever only looks is refused every write, by either database.
    """

    class Settings:
        database_max_connections = 1
        database_timeout = 5.0

    Settings.database_url = database_url
    engine = create_engine(Settings, only_looks=True)
    sessions = Sessions(get_session_factory(engine))
    try:
        with sessions.reading() as session:
            assert [] == session.query(ProcessingJob).all()
        with pytest.raises(WorkerError, match=r"read-?only"), sessions.writing() as session:
            session.add(ProcessingJob(batch_id="b1", zip_path="uploads/a.zip", run_id="r1"))
    finally:
        close(engine)


def test_what_a_crash_left_in_the_embedded_database_counts(monkeypatch, tmp_path):
    """
    A killed service leaves its last writes in a log beside the database: they are read, and stay where they are.
    """
    storage = Storage(tmp_path / "shared")
    storage.drop("a.zip", ["a.txt"])
    assert 0 == storage.run("run", "--once").returncode
    database = storage.base / ".inbox" / "inbox.db"
    subprocess.run([sys.executable, "-c", LEFT_OPEN, database], check=True)
    monkeypatch.setenv("STORAGE_BASE_PATH", str(storage.base))
    before = listing(storage.base)
    result = CliRunner().invoke(app, ["explain", str(storage.base / "processed" / "a.zip")])

    assert Path(f"{database}-wal").stat().st_size
    assert "(changed, " in first_line(result)
    assert before == listing(storage.base)


def test_question_does_not_disturb_a_running_service(tmp_path):
    """
    While the service runs its drops can be asked about, before, during and after, and each is taken as usual.
    """
    storage = Storage(tmp_path / "shared")
    with storage.service():
        storage.drop("a.zip", ["a.txt"])
        asked = [storage.run("explain", "a.zip") for _ in range(3)]
        receipt = storage.wait_for_receipt("a.zip")
        after = storage.run("explain", str(storage.base / "processed" / "a.zip"), "--json")

    assert "completed" == receipt["state"]
    assert [] == [
        result.stderr for result in asked if result.returncode not in {0, 1, 2} or "Traceback" in result.stderr
    ]
    assert 1 == len(storage.receipts())
    assert ("duplicate", "") == (json.loads(after.stdout)["verdict"], json.loads(after.stdout)["database"])
