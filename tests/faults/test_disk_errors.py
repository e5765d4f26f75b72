"""A volume that answers with errors, late, or not at all, over FUSE: the service waits, says so once, and goes on."""

import hashlib
import json
import os
from collections import Counter
from http.client import HTTPConnection

import pytest
from databases import connected
from mounts import faulty
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FAULTS = {
    "the scan": ["readdir EIO /uploads/"],
    "a stale handle": ["* ESTALE /"],
    "reading the drop": ["read EIO /uploads/"],
    "read-only": [f"{operation} EROFS /" for operation in ("create", "mkdir", "write", "link", "rename", "unlink")],
    "writing a member": ["write EIO /extracted/"],
    "syncing": ["fsync EIO /", "fsyncdir EIO /"],
    "publishing": ["rename EIO /extracted/"],
    "the receipt": ["rename EIO /.inbox/drafts/"],
    "the move": ["link EIO /processed/"],
    "slowness": ["read slow /uploads/", "create slow /", "rename slow /"],
}


def readiness(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["checks"]
    finally:
        connection.close()


@pytest.fixture
def fuse(tmp_path):
    with faulty(tmp_path) as mounted:
        yield mounted


def test_errors_of_the_volume_are_waited_for(fuse, tmp_path, unused_port):
    """
    Whatever the volume fails at, the drop is taken when it has recovered: completed, once, with the right content, and
    nothing half done is left; each trouble is told once for each leg.
    """
    url = f"sqlite:///{tmp_path}/inbox.db"
    shared = Storage(
        fuse.point, url, HANDLERS="handlers_for_processes", HTTP_PORT=unused_port, LOG_FILE_PATH=tmp_path / "worker.log"
    )
    dropped = {}
    with shared.service() as service:
        for number, (fault, rules) in enumerate(FAULTS.items()):
            wait_for(lambda: readiness(unused_port)[0] == 200, "readiness")
            members = {f"{number}-{n}.txt": os.urandom(500) for n in range(3 if number % 2 else 20)}
            dropped[f"{number}.zip"] = members
            data = archive([Member(path, content) for path, content in members.items()])
            hidden = fuse.point / "uploads" / f".{number}.part"
            hidden.write_bytes(data)
            before = len(fuse.met()), Counter(event["leg"] for event in service.events("TroubleBegan"))
            (tmp_path / "disk" / "uploads" / hidden.name).rename(tmp_path / "disk" / "uploads" / f"{number}.zip")
            fuse.fail(*rules)
            if fault != "slowness":
                wait_for(lambda: readiness(unused_port)[0] == 503, f"trouble with {fault}")
            wait_for(lambda before=before: len(fuse.met()) > before[0], f"a failure of {fault}")
            fuse.fail()
            told = shared.wait_for_receipt(f"{number}.zip")
            assert (fault, "completed", len(members)) == (fault, told["state"], told["succeeded"])
            began = Counter(event["leg"] for event in service.events("TroubleBegan")) - before[1]
            assert (fault, []) == (fault, [leg for leg, times in began.items() if times > 3])
        wait_for(lambda: not os.listdir(fuse.point / "uploads"), "the moves")
        status = service.terminate()

    with connected(url) as sessions, sessions.reading() as session:
        rows = {
            row.member_path: (row.file_path, row.content_sha256, row.status) for row in session.query(FileExtraction)
        }
    contents = {path: content for members in dropped.values() for path, content in members.items()}
    assert 0 == status
    assert contents.keys() == rows.keys()
    for path, content in contents.items():
        assert content == (fuse.point / rows[path][0]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), "success") == rows[path][1:]
    assert [".staging", len(dropped)] == [
        min(os.listdir(fuse.point / "extracted")),
        len(os.listdir(fuse.point / "extracted")) - 1,
    ]
    assert [] == os.listdir(fuse.point / "extracted" / ".staging")
    assert {f"{name}" for name in dropped} == set(os.listdir(fuse.point / "processed"))
    assert len(dropped) == len(os.listdir(fuse.point / "receipts"))
    assert [] == [line["message"] for line in service.lines() if line["level"] == "ERROR"]
    assert len(contents) == len(shared.calls())


def test_volume_that_hangs(fuse, tmp_path, unused_port):
    """
    While the volume gives no answer readiness says so in time, and everything goes on when it answers again.
    """
    shared = Storage(
        fuse.point,
        f"sqlite:///{tmp_path}/inbox.db",
        HANDLERS="handlers_for_processes",
        HTTP_PORT=unused_port,
        LOG_FILE_PATH=tmp_path / "worker.log",
    )
    with shared.service() as service:
        wait_for(lambda: readiness(unused_port)[0] == 200, "readiness")
        fuse.fail("readdir hang /", "read hang /", "create hang /")
        told = wait_for(lambda: (found := readiness(unused_port))[0] == 503 and found[1], "the loss of readiness")
        fuse.fail()
        shared.drop("a.zip", ["a.txt"])
        receipt = shared.wait_for_receipt("a.zip")
        status = service.terminate()

    assert "no answer within 1.5 s" == told["volume"]
    assert ("completed", 0) == (receipt["state"], status)
