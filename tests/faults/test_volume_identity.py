"""The volume below a running service goes, comes back, or is replaced: nothing of that is taken for a change in it."""

import json
import os
from http.client import HTTPConnection
from pathlib import Path

import pytest
from databases import connected
from mounts import in_memory, run, unmount
from processes import Storage, wait_for
from zips import archive

from inbox.database.models import FileExtraction, ProcessingJob

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ask(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["checks"]
    finally:
        connection.close()


def wait_ready(port, *, is_ready=True):
    wait_for(lambda: (ask(port)[0] == 200) is is_ready, f"readiness {is_ready}: {ask(port)}")


@pytest.fixture
def disk(tmp_path):
    """A file system in memory which is mounted a second time, so that it outlives its unmounting from the base."""
    with in_memory(tmp_path / "disk", size="200m") as disk:
        yield disk


@pytest.fixture
def base(tmp_path, disk):
    """The mount point of the volume, with the volume mounted."""
    point = tmp_path / "shared"
    point.mkdir()
    run("mount", "--bind", disk, point)
    yield point
    while os.path.ismount(point):
        unmount(point)


@pytest.fixture
def database_url(tmp_path):
    """A database beside the volume, of one kind: what is tried here happens above it."""
    return f"sqlite:///{tmp_path}/inbox.db"


@pytest.fixture
def shared(base, database_url, unused_port):
    return Storage(
        base,
        database_url,
        HANDLERS="handlers_for_processes",
        HTTP_PORT=unused_port,
        LEASE_SECONDS=2,
        TEST_SLOW_SECONDS=0.3,
    )


def everything_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def rows(url):
    with connected(url) as sessions, sessions.reading() as session:
        jobs = [(job.drop_name, job.status, job.zip_path) for job in session.query(ProcessingJob)]
        files = sorted((file.member_path, file.status) for file in session.query(FileExtraction))
    return sorted(jobs), files


def make_another_volume(place: Path):
    """A volume that other services have used: all the folders, and a sentinel of its own."""
    for name in ("uploads", "extracted/.staging", "processed", "quarantine", "receipts", "logs", ".inbox/locks"):
        (place / name).mkdir(parents=True)
    (place / ".inbox" / "volume").write_text("0" * 32 + "\n")
    (place / ".inbox" / "instances").mkdir()
    (place / ".inbox" / "instances" / "somebody.lock").write_text("")
    (place / "extracted" / ".staging" / "0.0").mkdir()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "the uploads folder cannot be read"),
        ("empty", "the volume is not there"),
        ("another", "another volume is mounted"),
    ],
)
def test_volume_goes_and_comes_back(shared, base, disk, database_url, unused_port, what, words):
    """
    With the volume gone, or another one above it, nothing is taken, forgotten, failed, made or deleted; one line says
    so, readiness is 503, and with the right volume back everything comes to its end, each file done once.
    """
    drops = {"slow.zip": [f"slow-{n}.txt" for n in range(8)], "later.zip": ["a.txt"]}
    with shared.service() as service:
        wait_ready(unused_port)
        shared.drop("slow.zip", drops["slow.zip"])
        wait_for(lambda: len(shared.calls()) >= 2, "the first calls")
        unmount(base)
        if what == "empty":
            run("mount", "-t", "tmpfs", "tmpfs", base)
            (base / "uploads").mkdir()
        if what == "another":
            run("mount", "-t", "tmpfs", "tmpfs", base)
            make_another_volume(base)
            (base / "uploads" / "foreign.zip").write_bytes(archive(["foreign.txt"]))
        before = everything_below(base)
        wait_ready(unused_port, is_ready=False)
        troubles = wait_for(
            lambda: [e for e in service.events("TroubleBegan") if e["leg"] == "rescuing"], "the rescuing's trouble"
        )
        wait_for(lambda: any(e["leg"] == "intake" for e in service.events("TroubleBegan")), "the intake's trouble")
        wait_for(lambda: "processing" not in dict(rows(database_url)[1]).values(), "the workers' rest")
        after = everything_below(base)
        told = ask(unused_port)[1]["volume"]
        between = rows(database_url)
        if what != "nothing":
            unmount(base)
        run("mount", "--bind", disk, base)
        wait_ready(unused_port)
        shared.drop("later.zip", drops["later.zip"])
        receipts = [shared.wait_for_receipt(name) for name in drops]
        wait_for(lambda: not os.listdir(base / "uploads"), "the moves")
        status = service.terminate()

    assert before == after
    assert {"success", "pending", "retrying"} >= {state for _, state in between[1]}
    assert [("slow.zip", "processing", "uploads/slow.zip")] == between[0]
    assert words in told
    assert ["completed", "completed"] == [told["state"] for told in receipts]
    assert sorted({path for _, path, _ in shared.calls()}) == sorted([*drops["slow.zip"], "a.txt"])
    legs = [event["leg"] for event in service.events("TroubleBegan")]
    assert len(legs) == len(set(legs))
    assert 1 == len(troubles)
    assert [] == [line for line in service.lines() if line["level"] == "ERROR"]
    assert 0 == status


def test_received_batch_outlives_an_empty_volume(shared, base, disk, database_url):
    """
    A batch that waits for its extraction is not forgotten because an empty volume, with an empty folder of uploads and
    without a sentinel, is what the service finds in place of its own.
    """
    with shared.service() as service:
        run("mount", "-t", "tmpfs", "-o", "size=50%", "tmpfs", base)
        for name in ("uploads", "extracted", "processed", "quarantine", "receipts"):
            (base / name).mkdir()
        with connected(database_url) as sessions, sessions.writing() as session:
            session.add(ProcessingJob(batch_id="b" * 64, drop_name="a.zip", zip_path="uploads/a.zip"))
        wait_for(lambda: any(e["leg"] == "rescuing" for e in service.events("TroubleBegan")), "the trouble")
        service.terminate()

    assert [("a.zip", "received", "uploads/a.zip")] == rows(database_url)[0]
    assert [] == service.events("BatchForgotten")


def test_start_waits_for_the_volume(shared, base, disk):
    """
    Started without its volume a service that had one makes nothing below the bare mount point, says once what it waits
    for, and begins when the volume is there.
    """
    with shared.service() as service:
        service.terminate()
    unmount(base)
    with shared.service(until="waiting for the volume") as service:
        made = everything_below(base)
        run("mount", "--bind", disk, base)
        service.wait_until("inbox serves")
        shared.drop("a.zip", ["a.txt"])
        shared.wait_for_receipt("a.zip")
        service.terminate()
    waiting = [line["message"] for line in service.lines() if "waiting" in line["message"]]

    assert [] == made
    assert 1 == len(waiting)
    assert "inbox adopt" in waiting[0]


def test_other_volume_at_the_start_is_a_mistake_until_it_is_adopted(shared, base, disk, tmp_path):
    """
    A start on a volume that the database does not belong to ends with one line that says what to do, and makes nothing;
    `inbox adopt` makes it the volume from then on.
    """
    with shared.service() as service:
        service.terminate()
    run("mount", "-t", "tmpfs", "tmpfs", base)
    make_another_volume(base)
    before = everything_below(base)
    refused, retried = shared.run("run", "--once"), shared.run("retry", "x")
    after = everything_below(base)
    adopted = shared.run("adopt")
    with shared.service() as service:
        shared.drop("a.zip", ["a.txt"])
        shared.wait_for_receipt("a.zip")
        service.terminate()

    assert (2, 2, 0) == (refused.returncode, retried.returncode, adopted.returncode)
    assert before == after
    assert "belongs to another volume" in refused.stderr
    assert "another volume is mounted" in retried.stderr
    assert "inbox adopt" in refused.stderr
    assert 1 == len(refused.stderr.splitlines())
    assert "0" * 32 in adopted.stdout
