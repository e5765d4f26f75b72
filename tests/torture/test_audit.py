"""The audit of a torture finds what is planted: a loss, a double, something stuck, and what nobody can explain."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from audit import audit
from database import Sqlite
from ledger import Ledger

pytestmark = pytest.mark.slow
COMMAND = Path(__file__).with_name("torture.py")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of small files are copied for each test."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def peaceful(scratch) -> Path:
    """What a run without any fault leaves behind."""
    folder = scratch / "peaceful"
    folder.mkdir()
    command = [sys.executable, COMMAND, "--database", "sqlite", "--replicas", "1", "--seed", "137", "--drops", "25"]
    done = subprocess.run(
        [*command, "--gap", "0.02", "--only", "nothing", "--plain", "--keep", "--folder", folder],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    (kept,) = folder.iterdir()
    return kept


class Scene:
    """A copy of it, in which something may be planted."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.base = folder / "volume" / "shared"
        self.database = self.base / ".inbox" / "inbox.db"

    def change(self, statement, *values):
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            changed = connection.execute(statement, values)
            assert 0 < changed.rowcount
            connection.commit()

    def find(self, query):
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchone()

    def call(self, doc_id, attempt, *, process="r1.1/77", at_ns=None, how="ok"):
        at_ns = at_ns or time.time_ns()
        with (self.folder / "journal").open("a") as journal:
            journal.write(
                f"B {doc_id} {attempt} {process} {at_ns} \nE {doc_id} {attempt} {process} {at_ns + 1} {how}\n"
            )

    def say(self, line, name="r1.out"):
        with (self.folder / name).open("a") as lines:
            lines.write(line + "\n")

    def audit(self):
        ledger = Ledger(self.folder / "ledger.db")
        try:
            return audit(ledger, Sqlite(self.database), self.base, self.folder)
        finally:
            ledger.close()


@pytest.fixture
def scene(peaceful, scratch) -> Iterator[Scene]:
    shutil.copytree(peaceful, scratch / "scene")
    yield Scene(scratch / "scene")
    shutil.rmtree(scratch / "scene")


SUCCEEDED = "FROM file_extractions WHERE status = 'success' AND retry_count = 0 ORDER BY doc_id LIMIT 1"


def lose_a_row(scene):
    scene.change(f"DELETE FROM file_extractions WHERE doc_id = (SELECT doc_id {SUCCEEDED})")


def lose_a_batch(scene):
    scene.change("DELETE FROM processing_jobs WHERE batch_id = (SELECT batch_id FROM processing_jobs LIMIT 1)")


def lose_a_file(scene):
    (scene.base / scene.find(f"SELECT file_path {SUCCEEDED}")[0]).unlink()


def damage_a_file(scene):
    path = scene.base / scene.find(f"SELECT file_path {SUCCEEDED}")[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def lie_about_a_hash(scene):
    scene.change(f"UPDATE file_extractions SET content_sha256 = 'abc' WHERE doc_id = (SELECT doc_id {SUCCEEDED})")


def a_receipt(scene):
    return next(path for path in sorted((scene.base / "receipts").iterdir()) if '"completed"' in path.read_text())


def lose_a_receipt(scene):
    a_receipt(scene).unlink()


def lie_in_a_receipt(scene):
    path = a_receipt(scene)
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"succeeded": told["succeeded"] + 1}))


def lose_an_archive(scene):
    next((scene.base / "processed").iterdir()).unlink()


def damage_an_archive(scene):
    with next((scene.base / "processed").iterdir()).open("ab") as file:
        file.write(b"x")


def lose_a_reason(scene):
    next((scene.base / "quarantine").glob("*.reason.json")).unlink()


def accept_a_hostile_one(scene):
    scene.change("UPDATE processing_jobs SET status = 'completed', reason_code = NULL WHERE status = 'quarantined'")


def refuse_for_another_reason(scene):
    scene.change("UPDATE processing_jobs SET reason_code = 'BAD_WEATHER' WHERE status = 'quarantined'")


def lose_a_call(scene):
    (doc_id,) = scene.find(f"SELECT doc_id {SUCCEEDED}")
    journal = scene.folder / "journal"
    journal.write_text("".join(line for line in journal.open() if doc_id not in line))


def call_after_success(scene):
    scene.call(scene.find(f"SELECT doc_id {SUCCEEDED}")[0], 1)


def call_after_failure(scene):
    doc_id, attempts = scene.find("SELECT doc_id, retry_count + 1 FROM file_extractions WHERE status = 'failed'")
    scene.call(doc_id, attempts)


def call_without_need(scene):
    scene.call(scene.find(f"SELECT doc_id {SUCCEEDED}")[0], 1, at_ns=1)


def count_an_attempt_too_many(scene):
    scene.call(scene.find(f"SELECT doc_id {SUCCEEDED}")[0], 2, at_ns=1)


def leave_a_file_in_processing(scene):
    scene.change(
        "UPDATE file_extractions SET status = 'processing', processing_completed_at = NULL"
        f" WHERE doc_id = (SELECT doc_id {SUCCEEDED})"
    )


def leave_a_batch_unreported(scene):
    scene.change("UPDATE processing_jobs SET reported_at = NULL")


def leave_a_drop(scene):
    path = next((scene.base / "processed").iterdir())
    shutil.copyfile(path, scene.base / "uploads" / path.name)


def leave_a_lease(scene):
    scene.change("INSERT INTO leases VALUES ('token', 'somebody', '2026-01-01 00:00:00.000000')")


def leave_a_staging_folder(scene):
    (scene.base / "extracted" / ".staging" / "abc.token").mkdir()


def leave_a_lock(scene):
    (scene.base / ".inbox" / "locks" / "abc.lock").touch()


def leave_a_draft(scene):
    (scene.base / ".inbox" / "drafts" / ".a.json.0a1b2c.tmp").touch()


def fail_what_succeeds(scene):
    scene.change(
        "UPDATE file_extractions SET status = 'failed', error_type = 'PARSE_ERROR'"
        f" WHERE doc_id = (SELECT doc_id {SUCCEEDED})"
    )


def fail_with_attempts_left(scene):
    scene.change(
        "UPDATE file_extractions SET status = 'failed', error_type = 'RETRYABLE'"
        f" WHERE doc_id = (SELECT doc_id {SUCCEEDED})"
    )


def make_a_file(scene):
    path = scene.base / scene.find(f"SELECT file_path {SUCCEEDED}")[0]
    path.with_name("one more").write_text("x")


def make_a_receipt(scene):
    (scene.base / "receipts" / "unknown.zip.json").write_text("{}")


def be_surprised(scene):
    scene.say('{"timestamp": "t", "message": "closing met a surprise", "exception": "Traceback"}')


def mumble(scene):
    scene.say("mumble")


def cry(scene):
    scene.say('Traceback (most recent call last):\n  File "/srv/inbox/app.py", line 1\nValueError: x', "r1.err")


PLANTED = {
    "lost": [
        (lose_a_row, "every member of a batch has its row"),
        (lose_a_batch, "every archive becomes a batch"),
        (lose_a_file, "every file is on the disk with its content"),
        (damage_a_file, "every file is on the disk with its content"),
        (lie_about_a_hash, "a row says what was in the archive"),
        (lose_a_receipt, "every drop has a receipt that says what became of it"),
        (lie_in_a_receipt, "a receipt's counts are those of its members"),
        (lose_an_archive, "every archive lies where it belongs, byte for byte"),
        (damage_an_archive, "every archive lies where it belongs, byte for byte"),
        (lose_a_reason, "a refused archive has its reason beside it"),
        (
            accept_a_hostile_one,
            "what is to be taken is taken, and what is to be refused is refused for the right reason",
        ),
        (
            refuse_for_another_reason,
            "what is to be taken is taken, and what is to be refused is refused for the right reason",
        ),
        (lose_a_call, "a file that succeeded or was skipped by its handler had the call that its row counts"),
    ],
    "done twice after success": [
        (call_after_success, "no call begins after the file's success was recorded"),
    ],
    "stuck": [
        (leave_a_file_in_processing, "every file comes to rest"),
        (leave_a_batch_unreported, "every batch is closed and reported"),
        (leave_a_drop, "nothing else is left in the uploads"),
        (leave_a_lease, "the dead leave nothing behind"),
        (leave_a_staging_folder, "the dead leave nothing behind"),
        (leave_a_lock, "the dead leave nothing behind"),
        (leave_a_draft, "the dead leave nothing behind"),
    ],
    "unexplained": [
        (call_after_failure, "no call begins after the file failed for good"),
        (
            call_without_need,
            "a file that is called again had failed to end well: its process was harmed, or it asked for it",
        ),
        (count_an_attempt_too_many, "attempts are bounded, and numbered rightly"),
        (fail_what_succeeds, "every file ends as its name demands"),
        (fail_with_attempts_left, "what failed for want of attempts had none left"),
        (make_a_file, "nothing else is on the disk"),
        (make_a_receipt, "no receipt is of anything else"),
        (be_surprised, "nothing is a surprise"),
        (mumble, "every line is JSON"),
        (cry, "nothing is said on standard error"),
    ],
}


def test_peace_is_clean(scene):
    """
    Where nothing went wrong the audit finds nothing, and it counted rows, calls and files.
    """
    findings = scene.audit()

    assert "" == findings.evidence()
    assert findings.is_clean
    assert 20 < scene.find("SELECT count(*) FROM file_extractions WHERE status = 'success'")[0]


@pytest.mark.parametrize(
    ("kind", "plant", "promise"),
    [(kind, plant, promise) for kind, cases in PLANTED.items() for plant, promise in cases],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_planted_is_found(scene, kind, plant, promise):
    """
    Each way of breaking a promise is found, under the name of that promise.
    """
    plant(scene)

    findings = scene.audit()

    assert promise in findings.violations[kind], findings.evidence()
    assert not findings.is_clean
