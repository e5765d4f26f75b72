"""The kernel's side of watching: limits that are reached, queues that overflow, folders that go. All of it for real."""

import errno
import os
import resource
import threading

import pytest
from kernel import LIMITS, overflow, told_within

from inbox.core.errors import StorageError
from inbox.pipeline.watching import Watch
from inbox.utils import inotify
from inbox.utils.clock import Bell
from inbox.utils.inotify import IN_Q_OVERFLOW, Inotify

LIMITED = """
import json, os, sys, threading
from pathlib import Path
from inbox.core.errors import StorageError
from inbox.pipeline.watching import Watch
from inbox.utils.clock import Bell

folder, limit = Path(sys.argv[1]), Path("/proc/sys/user") / sys.argv[2]
before, told = limit.read_text(), []
limit.write_text("0")
watch = Watch(folder, Bell())
held = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    try:
        watch.start()
    except StorageError as error:
        told.append(str(error))
left = len(os.listdir("/proc/self/fd")) - held, threading.active_count() - 1
limit.write_text(before)
watch.start()
print(json.dumps({"told": told, "left": left, "then": watch.ailment()}))
watch.stop()
"""

UNMOUNTED = """
import json, subprocess, sys
from pathlib import Path
from inbox.pipeline.watching import Watch
from inbox.utils.clock import Bell

folder, how, bell = Path(sys.argv[1]), sys.argv[2], Bell()
mount = ["mount", "-t", "tmpfs", "none", folder]
if how == "umount":
    subprocess.run(mount, check=True)
watch = Watch(folder, bell)
watch.start()
subprocess.run(["umount", folder] if how == "umount" else mount, check=True)
if how == "umount":
    assert bell.wait(10)
ailment = watch.ailment()
watch.start()
(folder / "a.zip").write_text("x")
print(json.dumps({"ailment": ailment, "rung": bell.wait(10), "then": watch.ailment()}))
watch.stop()
"""


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(uploads):
    watch = Watch(uploads, Bell())
    watch.start()
    yield watch
    watch.stop()


def ailment_after_ringing(watch):
    """Return what ails the watch as soon as something does."""
    while watch._bell.wait(10):
        if ailment := watch.ailment():
            return ailment
    raise AssertionError("nobody rang")


@pytest.mark.parametrize(
    ("limit", "name", "what"),
    [
        ("max_inotify_instances", "max_user_instances", "all inotify instances are in use"),
        ("max_inotify_watches", "max_user_watches", "all inotify watches are in use"),
    ],
)
def test_limit_that_is_reached_is_told_with_its_mend(uploads, limit, name, what):
    """
    Without instances or watches to be had the error says what to set; nothing is left of a start that failed, and the
    next one succeeds when there is room.
    """
    told = told_within(LIMITED, uploads, limit)
    wanted = 2 * int((LIMITS / name).read_text())

    line = f"the folder cannot be watched: {what} (sysctl fs.inotify.{name}={wanted})"
    assert {"told": [line] * 3, "left": [0, 0], "then": None} == told


@pytest.mark.parametrize(("limit", "wanted"), [("0", 128), ("128", 256)])
def test_limit_to_set_is_of_use(monkeypatch, tmp_path, limit, wanted):
    """
    Where a limit forbids watching altogether, its double would too: the line names one that lets something be watched.
    """
    (tmp_path / "max_user_instances").write_text(limit)
    monkeypatch.setattr(inotify, "_LIMITS", tmp_path)

    assert f"sysctl fs.inotify.max_user_instances={wanted}" == inotify.explained(OSError(errno.EMFILE, "x"))[1]


def test_limit_of_open_files_is_told_from_that_of_instances(uploads):
    """
    The kernel has one error for both; the hint is the one that helps.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    watch = Watch(uploads, Bell())
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(StorageError) as refused:
            watch.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert "ulimit -n" in str(refused.value)
    assert "sysctl" not in str(refused.value)


def test_kernel_tells_of_an_overflow(uploads):
    """
    The last notice of a queue that overflowed says so.
    """
    kernel = Inotify(uploads)
    overflow(uploads)
    last = None
    while notices := kernel.read(0):
        last = notices[-1]
    kernel.close()

    assert last.mask & IN_Q_OVERFLOW


def test_reader_that_waits_can_be_woken(uploads):
    """
    Whoever stops the watch need not wait until the time of a read is up.
    """
    kernel = Inotify(uploads)
    reader = threading.Thread(target=kernel.read, args=(3600,))
    reader.start()
    kernel.wake()
    reader.join(10)

    assert not reader.is_alive()
    assert [] == kernel.read(3600)
    kernel.close()


def test_overflow_ends_the_watch(uploads, monkeypatch):
    """
    When events were lost the bell rings and the watch is over, with what to set; the next one begins with no backlog.
    """
    read, released = Inotify.read, threading.Event()
    monkeypatch.setattr(Inotify, "read", lambda self, seconds: released.wait(30) and read(self, seconds))
    watch = Watch(uploads, Bell())
    watch.start()
    overflow(uploads)
    released.set()
    told = ailment_after_ringing(watch)
    watch.start()

    wanted = 2 * int((LIMITS / "max_queued_events").read_text())
    assert f"the kernel's queue of events overflowed (sysctl fs.inotify.max_queued_events={wanted})" == told
    assert watch.ailment() is None
    watch.stop()


@pytest.mark.parametrize("how", ["deleted", "moved away"])
def test_folder_that_goes_ends_the_watch(uploads, watch, how):
    """
    A folder that is deleted or moved away is told at once, and one that comes back in its place can be watched.
    """
    if how == "deleted":
        uploads.rmdir()
    else:
        uploads.rename(uploads.with_name("elsewhere"))
    told = ailment_after_ringing(watch)
    uploads.mkdir()
    watch.start()
    (uploads / "a.zip").write_text("x")

    assert f"the folder was {how}" == told
    assert watch._bell.wait(10)
    assert watch.ailment() is None


def test_folder_above_that_is_moved_is_noticed(uploads, watch):
    """
    The kernel tells a folder nothing of what happens above it: the watch compares what it watches with what is there.
    """
    uploads.parent.rename(uploads.parent.with_name("elsewhere"))
    without = watch.ailment()
    uploads.mkdir(parents=True)

    assert ["the folder was replaced, or mounted over"] * 2 == [without, watch.ailment()]


@pytest.mark.parametrize(
    ("how", "told"), [("umount", "the folder was unmounted"), ("mount", "the folder was replaced, or mounted over")]
)
def test_mount_that_goes_or_comes_ends_the_watch(uploads, how, told):
    """
    A watch keeps nobody from unmounting, and is over when its file system is unmounted, or another mounted above it.
    """
    seen = told_within(UNMOUNTED, uploads, how)

    assert {"ailment": told, "rung": True, "then": None} == seen


def test_emitter_that_fails_ends_the_watch(uploads, watch, monkeypatch):
    """
    An exception in the thread that reads events rings the bell and is told as the reason.
    """

    def broken(_data):
        raise ValueError("not what the kernel should send")

    monkeypatch.setattr(inotify, "_notices", broken)
    (uploads / "a.zip").write_text("x")

    assert "ValueError: not what the kernel should send" == ailment_after_ringing(watch)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_observer_that_fails_ends_the_watch(uploads):
    """
    An exception in the thread that hands events on is noticed when the watch is looked at.
    """

    def broken(_name):
        raise ValueError("a bug")

    watch = Watch(uploads, Bell(), broken)
    watch.start()
    observer = watch._observer
    (uploads / "a.zip").write_text("x")
    observer.join(10)

    assert "the thread that hands events on has ended" == watch.ailment()
    watch.stop()


def test_watch_leaves_nothing_behind(uploads):
    """
    Starting and stopping, in any order and again and again, keeps no descriptor and no thread.
    """
    watch = Watch(uploads, Bell())
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        watch.start()
        watch.start()
        watch.stop()
        watch.stop()

    assert before == (len(os.listdir("/proc/self/fd")), threading.active_count())
