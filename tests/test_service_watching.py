"""The whole service as a process when events fail it: limits, floods, folders that change, deaf file systems."""

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPConnection
from json import loads
from pathlib import Path

import pytest
from kernel import overflow, require, within
from processes import Storage, wait_for

HANDLERS = "handlers_for_processes"
SELDOM = {"SCAN_INTERVAL_SECONDS": "3600"}
"""Drops are then found by events, or by the lookout's own doing."""


@pytest.fixture
def shared(tmp_path):
    return Storage(tmp_path / "shared", f"sqlite:///{tmp_path}/inbox.db", HANDLERS=HANDLERS)


def watching(port):
    """Return what readiness tells of the watching, together with its status."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return {"status": answer.status, **loads(answer.read()).get("watching", {})}
    finally:
        connection.close()


def wait_until_ready(port):
    wait_for(lambda: watching(port)["status"] == 200, "readiness")


@pytest.mark.parametrize(
    ("limit", "setting"),
    [("max_inotify_instances", "max_user_instances"), ("max_inotify_watches", "max_user_watches")],
)
def test_service_without_a_watch_works_and_gets_one_later(shared, unused_port, limit, setting):
    """
    Where the system has no watch to give the service is ready and takes drops by scanning; it says so once, with what
    to set, and once when events come again.
    """
    gate = shared.base.parent / "gate"
    os.mkfifo(gate)
    limit = f"/proc/sys/user/{limit}"
    lowered = f"before=$(cat {limit}); echo 0 > {limit}; (read -r _ < {gate}; echo $before > {limit}) &"
    require(f"cat {limit} > /dev/null")
    with shared.service(within=within(lowered), HTTP_PORT=unused_port) as service:
        wait_until_ready(unused_port)
        without = watching(unused_port)
        shared.drop("a.zip", ["ok.txt"])
        first = shared.wait_for_receipt("a.zip")
        gate.write_text("open\n")
        wait_for(lambda: service.events("WatchingByEvents"), "the watch")
        with_one = watching(unused_port)
        shared.drop("b.zip", ["ok.txt", "other.txt"])
        second = shared.wait_for_receipt("b.zip")
        told = service.events("WatchingByScan")
        status = service.terminate()

    assert ("completed", "completed", 0) == (first["state"], second["state"], status)
    assert 1 == len(told)
    assert f"sysctl fs.inotify.{setting}=" in told[0]["message"]
    assert ("scan", told[0]["reason"], 200) == tuple(without[name] for name in ("by", "reason", "status"))
    assert ("events", "", 200) == tuple(with_one[name] for name in ("by", "reason", "status"))


def test_overflow_is_followed_by_a_scan(shared, unused_port):
    """
    A drop whose event was lost in an overflow is found at once, however seldom the folder is scanned, and the limit to
    raise is told.
    """
    with shared.service(**SELDOM, HTTP_PORT=unused_port) as service:
        wait_until_ready(unused_port)
        service.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED)  # until none of its threads reads any more
        overflow(shared.base / "uploads")
        shared.drop("a.zip", ["ok.txt"])
        service.process.send_signal(signal.SIGCONT)
        receipt = shared.wait_for_receipt("a.zip")  # perhaps for an event before the overflow
        (again,) = wait_for(lambda: service.events("WatchingByEvents"), "the watch")
        (lost,) = service.events("WatchingByScan")
        by = watching(unused_port)["by"]

    assert ("completed", "events") == (receipt["state"], by)
    assert "sysctl fs.inotify.max_queued_events=" in lost["reason"]
    assert lost["timestamp"] <= again["timestamp"]


@pytest.mark.parametrize("how", ["deleted", "moved away", "moved with the folder above"])
def test_folder_that_comes_back_is_watched(shared, unused_port, how):
    """
    When another folder has taken the place of the uploads, its drops are announced like those of the first.
    """
    uploads = shared.base / "uploads"
    with shared.service(HTTP_PORT=unused_port) as service:
        wait_until_ready(unused_port)
        if how == "deleted":
            uploads.rmdir()
        elif how == "moved away":
            uploads.rename(shared.base / "elsewhere")
        else:
            shutil.copytree(shared.base, shared.base.with_name("copy"))
            shared.base.rename(shared.base.with_name("elsewhere"))
            shared.base.with_name("copy").rename(shared.base)
        uploads.mkdir(exist_ok=True)
        wait_for(lambda: service.events("WatchingByEvents"), "the watch")
        wait_until_ready(unused_port)
        by = watching(unused_port)["by"]
        shared.drop("a.zip", ["ok.txt"])
        wait_for(lambda: service.events("BatchClaimed"), "the claim")

    assert "events" == by
    assert 1 == len(service.events("WatchingByScan"))


def test_volume_that_is_unmounted_and_mounted_again_is_watched(tmp_path, unused_port):
    """
    While the volume is unmounted the service is not ready; when it is back its drops are announced again.
    """
    mount_point, gate = tmp_path / "mount", tmp_path / "gate"
    behind = Storage(tmp_path / "disk", f"sqlite:///{tmp_path}/inbox.db", HANDLERS=HANDLERS)
    behind.environment["STORAGE_BASE_PATH"] = str(mount_point)
    mount_point.mkdir()
    os.mkfifo(gate)
    mounted = f"mount --bind {behind.base} {mount_point}"
    require(mounted)
    script = f"{mounted}; (read -r _ < {gate}; umount -l {mount_point}; read -r _ < {gate}; {mounted}) &"
    with behind.service(within=within(script), HTTP_PORT=unused_port) as service:
        wait_until_ready(unused_port)
        gate.write_text("unmount\n")
        wait_for(lambda: watching(unused_port)["status"] == 503, "the loss of readiness")
        wait_for(lambda: service.events("WatchingByScan"), "the loss of the watch")
        gate.write_text("mount\n")
        wait_until_ready(unused_port)
        wait_for(lambda: service.events("WatchingByEvents"), "the watch")
        behind.drop("a.zip", ["ok.txt"])
        receipt = behind.wait_for_receipt("a.zip")
        told = service.events("WatchingByScan"), service.events("WatchingByEvents")

    assert "completed" == receipt["state"]
    assert [1, 1] == [len(lines) for lines in told]


@contextmanager
def mirrored(source: Path, mount_point: Path):
    """Show a folder at another place through FUSE, as a network file system shows a server's."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is missing, or not for this user")
    for folder in (source, mount_point):
        folder.mkdir()
    mounting = ["bindfs", "--no-allow-other", source, mount_point]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["fusermount3", "-u", "-z", mount_point], check=True)


@pytest.mark.slow
def test_fuse_is_scanned_from_the_start(tmp_path, unused_port):
    """
    On a FUSE mount a drop that somebody writes behind it, without an event, is taken: scans come every 5 s without a
    setting, after 5 s of quiet.
    """
    with mirrored(tmp_path / "server", tmp_path / "mount"):
        shared = Storage(tmp_path / "mount" / "shared", f"sqlite:///{tmp_path}/inbox.db", HANDLERS=HANDLERS)
        behind = Storage(tmp_path / "server" / "shared")
        unset = {"SETTLE_SECONDS": "", "SCAN_INTERVAL_SECONDS": ""}
        shared.calls_path = tmp_path / "calls.txt"
        with shared.service(HTTP_PORT=unused_port, TEST_CALLS=shared.calls_path, **unset) as service:
            wait_until_ready(unused_port)
            told = watching(unused_port)
            path = behind.drop("a.zip", ["ok.txt"])
            dropped_at = path.stat().st_mtime
            receipt = shared.wait_for_receipt("a.zip")
            (claimed,) = service.events("BatchClaimed")
            status = service.terminate()
            said = service.events("WatchingByScan") + service.events("DropsUnannounced")

    assert ("completed", 0) == (receipt["state"], status)
    assert {
        "by": "scan",
        "reason": "fuse announces no changes made elsewhere",
        "scan_interval_seconds": 5.0,
        "unannounced_drops": 0,
        "status": 200,
    } == told
    assert datetime.fromisoformat(claimed["timestamp"]).timestamp() - dropped_at >= 5
    assert [] == said


@pytest.mark.slow
def test_unannounced_drops_shorten_the_interval(tmp_path, unused_port):
    """
    A drop that comes into a local file system by a back way is found by a scan, counted and told, and the next scans
    come sooner.
    """
    lower, merged = tmp_path / "lower", tmp_path / "merged"
    for folder in (lower / "shared" / "uploads", merged, tmp_path / "upper", tmp_path / "work"):
        folder.mkdir(parents=True)
    options = f"userxattr,lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounted = f"mount -t overlay -o {options} none {merged}"
    require(mounted)
    behind = Storage(lower / "shared", f"sqlite:///{tmp_path}/inbox.db", HANDLERS=HANDLERS)
    behind.environment["STORAGE_BASE_PATH"] = str(merged / "shared")
    seldom = {"SCAN_INTERVAL_SECONDS": "6", "HTTP_PORT": unused_port}
    with behind.service(within=within(mounted), **seldom) as service:
        wait_until_ready(unused_port)
        before = watching(unused_port)
        behind.drop("a.zip", ["ok.txt"])
        (told,) = wait_for(lambda: service.events("DropsUnannounced"), "the miss")
        after = watching(unused_port)

    assert ("events", 6, 0) == tuple(before[name] for name in ("by", "scan_interval_seconds", "unannounced_drops"))
    assert ("events", 5, 1) == tuple(after[name] for name in ("by", "scan_interval_seconds", "unannounced_drops"))
    assert (1, 5, "WARNING") == (told["drops"], told["scan_interval_seconds"], told["level"])
    assert 1 == len(service.events("BatchClaimed"))
