"""Handlers that do harm to their process, to the service, or never end: their files pay for it, and nobody else's."""

from pathlib import Path

import pytest
from databases import connected
from processes import Storage, wait_for

from inbox.database.models import FileExtraction

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
PATIENCE_SECONDS = 300.0
CLOSED = "the handler closed the worker process's connection to the service"
LATE = "the handler was killed after 3 s"
DEADLY = {
    "by_signal_to_itself": "the worker process ended by SIGKILL while it had this file",
    "stack_overflow": "the worker process ended by SIGSEGV while it had this file",
    "closed_descriptors": CLOSED,
    "leave_a_daemon_and_die": "the worker process ended by SIGSEGV while it had this file",
    "leave_a_daemon": LATE,
    "hold_the_interpreter": LATE,
}
BEARABLE = ("exit_in_a_thread", "fork_that_returns", "fork_that_dies")
HARMLESS = tuple(f"harmless-{number}" for number in range(12))


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(
        tmp_path / "shared",
        database_url,
        HANDLERS="handlers_that_harm",
        WORKER_PROCESSES=2,
        TEST_CHILD=tmp_path / "children",
    )


def rows_of(database_url) -> dict[str, FileExtraction]:
    with connected(database_url) as sessions, sessions.reading() as session:
        return {row.file_name.removesuffix(".txt"): row for row in session.query(FileExtraction)}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_file_that_ends_its_process_fails_alone(shared, database_url, tmp_path):
    """
    However a handler ends its process or outstays its time, its file alone is charged and says how; the rest of the
    page goes through uncounted, and nothing that a dead handler has started is left.
    """
    names = [*HARMLESS[:4], *DEADLY, *HARMLESS[4:8], *BEARABLE, *HARMLESS[8:]]
    shared.drop("a.zip", [f"{name}.txt" for name in names])
    done = shared.run("run", "--once", seconds=PATIENCE_SECONDS, MAX_RETRY_ATTEMPTS=1, FILE_PROCESSING_TIMEOUT=3)
    rows = rows_of(database_url)
    children = [int(line) for line in (tmp_path / "children").read_text().split()]

    assert 1 == done.returncode, done.stderr
    assert DEADLY == {name: rows[name].error_message.partition(" (")[0] for name in DEADLY}
    assert {"TIMEOUT"} == {rows[name].error_type for name, reason in DEADLY.items() if reason == LATE}
    assert {"success"} == {rows[name].status for name in (*BEARABLE, *HARMLESS)}
    assert {0} == {row.retry_count for row in rows.values()}
    assert {1} == {attempt for *_, attempt in shared.calls()}
    assert 4 == len(children)
    wait_for(lambda: not any(is_alive(pid) for pid in children), "the end of what they started")


def test_file_that_ends_the_service_fails_after_its_attempts(shared, database_url):
    """
    A file whose handler kills the whole service is charged each time, and the service goes on without it in the end.
    """
    shared.drop("a.zip", [f"{name}.txt" for name in (*HARMLESS[:2], "kill_of_the_service_while_busy", *HARMLESS[2:])])
    settings = {"MAX_RETRY_ATTEMPTS": 2, "WORKER_PROCESSES": 1}
    statuses = [shared.run("run", "--once", seconds=PATIENCE_SECONDS, **settings).returncode for _ in range(3)]
    rows = rows_of(database_url)
    guilty = rows["kill_of_the_service_while_busy"]

    assert [-9, -9, 1] == statuses
    assert ("failed", 1) == (guilty.status, guilty.retry_count)
    assert {("success", 0)} == {(rows[name].status, rows[name].retry_count) for name in HARMLESS}
    assert [1, 2] == [attempt for _, path, attempt in shared.calls() if path.startswith("kill")]


def test_file_that_ends_the_service_and_returns_is_no_loop(shared, database_url):
    """
    What a handler has returned is recorded, even when it killed the service on the way: the file is not tried for ever.
    """
    shared.drop("a.zip", ["kill_of_the_service.txt", *(f"{name}.txt" for name in HARMLESS)])

    def finished() -> bool:
        return shared.run("run", "--once", seconds=PATIENCE_SECONDS, WORKER_PROCESSES=1).returncode == 0

    wait_for(finished, seconds=PATIENCE_SECONDS)

    assert {"success"} == {row.status for row in rows_of(database_url).values()}
    assert len([path for _, path, _ in shared.calls() if path.startswith("kill")]) <= 3
