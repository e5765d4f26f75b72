"""The whole service as a process when things are in its way: no database yet, signals, stubborn children."""

import json
import os
import signal
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from processes import DEADLINE_SECONDS, Storage, wait_for

HANDLERS = "handlers_for_processes"


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(tmp_path / "shared", database_url, HANDLERS=HANDLERS)


@pytest.fixture
def without_database(tmp_path):
    """A service whose database does not answer: nobody may listen on this port but root, and nobody does."""
    url = "postgresql://nobody:secret@127.0.0.1:9/inbox"
    return Storage(tmp_path / "shared", url, HANDLERS=HANDLERS, DATABASE_TIMEOUT=2)


def ask(port, path):
    """Return what a probe answers, or None while nobody does."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except OSError:
            return None


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_start_without_a_database_waits_and_can_be_stopped(without_database, unused_port):
    """
    Without a database at its start the service lives, is not ready, says so once, and ends in good order when asked.
    """
    with without_database.service(until="waiting", HTTP_PORT=unused_port) as service:
        alive = wait_for(lambda: ask(unused_port, "/livez"), "an answer")
        told = ask(unused_port, "/readyz")
        status = service.terminate()
    waiting = [line for line in service.lines() if "waiting for the database" in line["message"]]

    assert ({"status": "ok", "checks": {}}, {"service": "starting"}, 0) == (alive, told["checks"], status)
    assert (1, "WARNING") == (len(waiting), waiting[0]["level"])
    assert "secret" not in service.output.read_text()
    assert ["SIGTERM"] == [line["reason"] for line in service.events("ServiceStopping")]


def test_database_that_comes_late_is_taken_up(tmp_path, own_postgres_server):
    """
    A service that was started before its database begins as soon as the database is there.
    """
    url = own_postgres_server.create_database()
    shared = Storage(tmp_path / "shared", url, HANDLERS=HANDLERS, DATABASE_TIMEOUT=2)
    own_postgres_server.local.stop()
    with shared.service(until="waiting") as service:
        shared.drop("a.zip", ["ok.txt"])
        own_postgres_server.local.start()
        told = shared.wait_for_receipt("a.zip")
        status = service.terminate()

    assert ("completed", 0) == (told["state"], status)


def test_once_without_a_database_is_a_mistake(without_database):
    """
    `run --once` does not wait: without a database it ends with 2 and one line.
    """
    done = without_database.run("run", "--once")

    assert 2 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "the database does not answer" in done.stderr


def test_once_cut_short_is_not_well(shared):
    """
    `run --once` that a signal ended before everything was done says so with its exit status.
    """
    shared.drop("a.zip", ["hang.txt", "ok.txt"])
    with shared.service("--once", SHUTDOWN_GRACE_SECONDS=3) as service:
        wait_for(shared.calls)
        status = service.terminate()

    assert 1 == status
    assert shared.receipt("a.zip") is None


def test_grace_is_kept_while_the_database_is_away(tmp_path, own_postgres_server, unused_port):
    """
    Asked to stop during an outage, workers that wait for the database end in good order.
    """
    url = own_postgres_server.create_database()
    shared = Storage(tmp_path / "shared", url, HANDLERS=HANDLERS, DATABASE_TIMEOUT=2, SHUTDOWN_GRACE_SECONDS=50)
    with shared.service(HTTP_PORT=unused_port) as service:
        wait_for(lambda: ask(unused_port, "/readyz")["status"] == "ok", "readiness")
        own_postgres_server.local.stop()
        wait_for(lambda: ask(unused_port, "/readyz")["checks"]["workers"] != "ok", "the workers' trouble")
        status = service.terminate()

    assert 0 == status
    assert [] == service.events("WorkerDied")


def test_what_a_handler_started_is_killed_with_it(shared):
    """
    At the deadline a handler's own child processes end too.
    """
    shared.environment |= {"FILE_PROCESSING_TIMEOUT": "1", "MAX_RETRY_ATTEMPTS": "1"}
    note = shared.base.parent / "child.pid"
    shared.environment["TEST_CHILD"] = str(note)
    with shared.service():
        shared.drop("a.zip", ["child.txt"])
        told = shared.wait_for_receipt("a.zip")
        child = int(note.read_text())
        wait_for(lambda: not is_running(child), "the child's end")

    assert ["TIMEOUT"] == [entry["reason_code"] for entry in told["entries"]]


def test_signal_to_the_whole_group_does_not_hit_the_workers(shared):
    """
    Ctrl-C reaches every process of a terminal's group: the file in hand is finished all the same, by its first attempt.
    """
    shared.environment["TEST_SLOW_SECONDS"] = "1"
    with shared.service() as service:
        shared.drop("a.zip", ["slow.txt"])
        wait_for(shared.calls)
        os.killpg(service.process.pid, signal.SIGINT)
        status = service.process.wait(DEADLINE_SECONDS)

    assert 0 == status
    assert 1 == len(service.events("AttemptSucceeded"))
    assert [] == service.events("WorkerDied")
    assert "Traceback" not in service.output.read_text()


def test_worker_that_cannot_work_says_why(shared):
    """
    The reason for a worker's end stands in the log, and not on the console alone.
    """
    module = shared.base.parent / "stubborn.py"
    module.write_text(
        "import multiprocessing\n"
        "from inbox import handler\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    raise RuntimeError('not in a worker')\n"
        "@handler\n"
        "def nothing(file): ...\n"
    )
    with shared.service(HANDLERS="stubborn") as service:
        wait_for(lambda: service.events("WorkerDied"))
        told = [line["message"] for line in service.lines() if line["level"] == "ERROR" and "event" not in line]
        status = service.terminate()

    assert 0 == status
    assert "not in a worker" in told[0]
