"""The whole service as a process, on both databases: from the drop to the receipt, and to a clean end."""

import json
import os
import threading
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from processes import Storage, wait_for
from sealing import PASSWORD, locked, locked_by_aes
from zips import Member, archive

HANDLERS = "handlers_for_processes"


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(tmp_path / "shared", database_url, HANDLERS=HANDLERS)


def states(receipt):
    return {entry["path"]: entry["state"] for entry in receipt["entries"]}


def test_drop_becomes_rows_and_a_receipt(shared):
    """
    A drop into the running service is processed, retried where it may be, reported, and moved; SIGTERM ends it with 0.
    """
    with shared.service() as service:
        shared.drop("mixed.zip", ["ok.txt", "flaky.txt", "broken.pdf", "print.txt", "__MACOSX/._ok.txt"])
        told = shared.wait_for_receipt("mixed.zip")
        wait_for(lambda: not os.listdir(shared.base / "uploads"), "the move")
        status = service.terminate()

    assert 0 == status
    assert "partial" == told["state"]
    assert {
        "ok.txt": "success",
        "flaky.txt": "success",
        "broken.pdf": "failed",
        "print.txt": "success",
        "__MACOSX/._ok.txt": "skipped",
    } == states(told)
    assert (5, 4, 1, 3, 1) == tuple(told[name] for name in ("members", "files", "skipped", "succeeded", "failed"))
    assert [1, 2] == [attempt for _, path, attempt in shared.calls() if path == "flaky.txt"]


def test_closed_drop_need_not_be_quiet(shared):
    """
    A drop that nobody has open, as far as the kernel tells, is taken as it is closed or moved in.
    """
    with shared.service(SETTLE_SECONDS=3600, SCAN_INTERVAL_SECONDS=3600):
        shared.drop("moved.zip", ["ok.txt"])
        assert "completed" == shared.wait_for_receipt("moved.zip")["state"]
        path = shared.base / "uploads" / "written.zip"
        data = archive(["ok.txt", "more.txt"])
        with path.open("wb") as writer:
            writer.write(data[:50])
            writer.flush()
            writer.write(data[50:])
        assert "completed" == shared.wait_for_receipt("written.zip")["state"]


def test_each_batch_and_attempt_has_its_line(shared):
    """
    The log has a line for every stage of a batch and one for every attempt, all with the batch's correlation id.
    """
    with shared.service() as service:
        shared.drop("a.zip", ["ok.txt", "flaky.txt", "broken.txt"])
        told = shared.wait_for_receipt("a.zip")
        wait_for(lambda: service.events("BatchReported"))
        lines = service.lines()

    of_batch = [line for line in lines if line.get("batch_id") == told["batch_id"]]
    assert {told["batch_id"][:12]} == {line["correlation_id"] for line in of_batch}
    assert {
        "BatchClaimed": 1,
        "BatchRegistered": 1,
        "AttemptSucceeded": 2,
        "AttemptToRepeat": 1,
        "AttemptFailed": 1,
        "BatchClosed": 1,
        "BatchReported": 1,
    } == Counter(line["event"] for line in of_batch)
    in_file = [json.loads(line) for line in (shared.base / "logs" / "worker.log").read_text().splitlines()]
    assert len(of_batch) == sum(line.get("batch_id") == told["batch_id"] for line in in_file)


def test_second_start_does_nothing_twice(shared):
    """
    After a restart the same archive is recognised, its handler is not called, and the receipt says duplicate.
    """
    members = ["one.txt", "two.txt"]
    with shared.service() as service:
        shared.drop("a.zip", members)
        first = shared.wait_for_receipt("a.zip")
        service.terminate()
    with shared.service():
        shared.drop("again.zip", members)
        second = shared.wait_for_receipt("again.zip")

    assert ("completed", "duplicate") == (first["state"], second["state"])
    assert first["batch_id"] == second["batch_id"]
    assert 2 == len(shared.calls())


def test_once_ends_by_what_came_of_it(shared):
    """
    `run --once` processes what is there and ends: 0 when all went well, 1 when something failed or is not complete.
    """
    shared.drop("good.zip", ["ok.txt", "flaky.txt"])
    good = shared.run("run", "--once")
    shared.drop("bad.zip", ["broken.txt", "ok.txt"])
    bad = shared.run("run", "--once")
    shared.drop("refused.zip", archive([Member("a", flags=1)]))
    refused = shared.run("run", "--once")
    shared.drop("cut.zip", archive(["a"])[:50])
    cut = shared.run("run", "--once")

    assert [0, 1, 1, 1] == [done.returncode for done in (good, bad, refused, cut)], bad.stderr
    assert "cut.zip stays in the uploads: it begins like a ZIP archive and has no end" in cut.stderr
    assert {"good.zip": "completed", "bad.zip": "partial", "refused.zip": "quarantined"} == {
        drop: shared.receipt(drop)["state"] for drop in ("good.zip", "bad.zip", "refused.zip")
    }
    assert ["cut.zip"] == os.listdir(shared.base / "uploads")


def test_encrypted_drops_open_with_the_passwords_of_a_file(shared, tmp_path):
    """
    An encrypted drop is unpacked when a line of the passwords' file opens it, else refused; none of them is told.
    """
    (tmp_path / "passwords").write_text(f"hunter2\n{PASSWORD}\n")
    shared.environment["ARCHIVE_PASSWORDS_FILE"] = str(tmp_path / "passwords")
    shared.environment["LOG_LEVEL"] = "DEBUG"
    shared.drop("opens.zip", archive([locked_by_aes("ok.txt"), locked("docs/ok.txt")]))
    shared.drop("stays.zip", archive([locked_by_aes("ok.txt", password="other")]))
    done = shared.run("run", "--once")

    assert "completed" == shared.receipt("opens.zip")["state"]
    assert ("quarantined", "ENCRYPTED") == tuple(shared.receipt("stays.zip")[name] for name in ("state", "reason_code"))
    told = done.stdout + done.stderr + str(shared.receipts())
    assert "none of the 2 passwords fits" in told
    assert not any(password in told for password in ("hunter2", PASSWORD))


def test_backoff_survives_a_restart(shared):
    """
    When a repetition is due stands in the database: a restart neither forgets nor hurries it.
    """
    slow = {"RETRY_BASE_DELAY_SECONDS": "4"}
    with shared.service(**slow) as service:
        shared.drop("a.zip", ["flaky.txt"])
        (first,) = wait_for(lambda: service.events("AttemptToRepeat"))
        service.terminate()
    with shared.service(**slow) as service:
        (second,) = wait_for(lambda: service.events("AttemptSucceeded"))

    assert 4.0 == first["wait_seconds"]
    assert second["timestamp"] > first["timestamp"]
    assert [1, 2] == [attempt for *_, attempt in shared.calls()]


def test_stopping_finishes_or_gives_back(shared):
    """
    SIGTERM in the middle of a batch ends with 0 within the grace; what was in hand is recorded, the rest runs later.
    """
    shared.environment["TEST_SLOW_SECONDS"] = "0.3"
    members = [f"slow-{number}.txt" for number in range(12)]
    with shared.service() as service:
        shared.drop("a.zip", members)
        wait_for(lambda: len(shared.calls()) >= 3)
        status = service.terminate()
    before = len(shared.calls())
    with shared.service():
        told = shared.wait_for_receipt("a.zip")

    assert (0, "completed", 12) == (status, told["state"], told["succeeded"])
    assert 3 <= before < 12
    assert sorted(members) == sorted(path for _, path, _ in shared.calls())
    assert {1} == {attempt for *_, attempt in shared.calls()}


def test_bad_file_costs_itself_alone(shared):
    """
    Files whose handler kills its process or never ends fail alone, with their own error; the others are unharmed.
    """
    shared.environment |= {"FILE_PROCESSING_TIMEOUT": "1", "MAX_RETRY_ATTEMPTS": "2"}
    good = [f"ok-{number}.txt" for number in range(20)]
    with shared.service():
        shared.drop("a.zip", [*good[:10], "exit.txt", "segfault.txt", "hang.txt", *good[10:]])
        told = shared.wait_for_receipt("a.zip")
    failed = {entry["path"]: entry for entry in told["entries"] if entry["state"] == "failed"}

    assert (20, 3) == (told["succeeded"], told["failed"])
    assert {"exit.txt": "RETRYABLE", "segfault.txt": "RETRYABLE", "hang.txt": "TIMEOUT"} == {
        path: entry["reason_code"] for path, entry in failed.items()
    }
    assert "exit code 3" in failed["exit.txt"]["reason"]
    assert "SIGSEGV" in failed["segfault.txt"]["reason"]
    assert {2} == {entry["attempts"] for entry in failed.values()}
    assert {1} == {attempt for _, path, attempt in shared.calls() if path.startswith("ok")}


def test_operator_retries_what_failed(shared):
    """
    After the cause is mended, `inbox retry` brings a failed batch to its end in the running service.
    """
    with shared.service(HANDLERS="", HANDLER_URL="http://127.0.0.1:9/files", MAX_RETRY_ATTEMPTS="1") as service:
        shared.drop("a.zip", ["ok.txt"])
        first = shared.wait_for_receipt("a.zip")
        service.terminate()
    with shared.service() as service:
        asked = shared.run("retry", "a.zip")
        wait_for(lambda: service.events("BatchReported"))

    assert ("failed", "RETRYABLE") == (first["state"], first["entries"][0]["reason_code"])
    assert (0, "1 files of a.zip will be tried again in a new run\n") == (asked.returncode, asked.stdout)
    assert "completed" == shared.receipt("a.zip")["state"]


class Neighbour(BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"seen": told["file_path"]}).encode()
        self.send_response(422 if "broken" in told["name"] else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


def test_neighbour_is_asked_over_http(shared):
    """
    With HANDLER_URL every file is announced to the application next door, and its status decides.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Neighbour)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    shared.environment |= {"HANDLERS": "", "HANDLER_URL": f"http://127.0.0.1:{server.server_port}/files"}
    shared.drop("a.zip", ["ok.txt", "broken.txt"])
    shared.run("run", "--once")
    server.shutdown()
    server.server_close()

    assert {"ok.txt": "success", "broken.txt": "failed"} == states(shared.receipt("a.zip"))


def ask(port, path):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except OSError:
        return 0, {}
    finally:
        connection.close()


def test_readiness_tells_the_truth(tmp_path, own_postgres_server, unused_port):
    """
    While the database is away the service lives, is not ready, says so once, and goes on by itself.
    """
    shared = Storage(tmp_path / "shared", own_postgres_server.create_database(), HANDLERS=HANDLERS, DATABASE_TIMEOUT=2)
    with shared.service(HTTP_PORT=unused_port) as service:
        wait_for(lambda: ask(unused_port, "/readyz")[0] == 200, "readiness")
        own_postgres_server.local.stop()
        wait_for(lambda: ask(unused_port, "/readyz")[0] == 503, "the loss of readiness")
        alive, told = ask(unused_port, "/livez")[0], ask(unused_port, "/readyz")[1]
        shared.drop("a.zip", ["ok.txt"])
        wait_for(lambda: service.events("TroubleBegan"))
        own_postgres_server.local.start()
        receipt = shared.wait_for_receipt("a.zip")
        wait_for(lambda: ask(unused_port, "/readyz")[0] == 200, "readiness again")
        troubles = [line["leg"] for line in service.events("TroubleBegan")]
        status = service.terminate()

    assert (200, 0, "completed") == (alive, status, receipt["state"])
    assert "does not answer" in told["checks"]["database"]
    assert len(troubles) <= 2 * len(set(troubles))


def test_vanished_volume_is_waited_for(shared, unused_port):
    """
    Uploads that vanish are trouble and not an empty folder: not ready, then going on when they are back.
    """
    uploads = shared.base / "uploads"
    with shared.service(HTTP_PORT=unused_port):
        wait_for(lambda: ask(unused_port, "/readyz")[0] == 200, "readiness")
        uploads.rename(shared.base / "away")
        wait_for(lambda: ask(unused_port, "/readyz")[0] == 503, "the loss of readiness")
        (shared.base / "away").rename(uploads)
        shared.drop("a.zip", ["ok.txt"])

        assert "completed" == shared.wait_for_receipt("a.zip")["state"]
