"""The lookout keeps the uploads watched as far as it can be, and tells once when it cannot and when it can again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_parts import Clock

from inbox.core.errors import StorageError
from inbox.events import DropsUnannounced, WatchingByEvents, WatchingByScan
from inbox.pipeline.rescans import Pace
from inbox.pipeline.watching import Watch, scan
from inbox.service.lookout import Lookout, Retrying
from inbox.utils.clock import Bell

FULL = StorageError("no watch to give", hint="sysctl x=2")


class FragileWatch:
    """A watch that is granted while nothing is in `refusal`, and lost when the test says why."""

    def __init__(self):
        self.refusal = None
        self.lost_because = "not watched"
        self.starts = 0

    def start(self):
        self.starts += 1
        if self.refusal:
            raise self.refusal
        self.lost_because = None

    def ailment(self):
        return self.lost_because

    def stop(self):
        self.lost_because = "stopped"


class Post:
    """A lookout with what belongs to it."""

    def __init__(self, unannounced=None, uploads=None):
        self.clock, self.events, self.bell = Clock(), [], Bell()
        self.watch = FragileWatch()
        self.heard = None
        self.uploads = uploads
        self.lookout = Lookout(
            self.make,
            self.bell,
            pace=Pace(15, 5, self.clock),
            clock=self.clock,
            emit=self.events.append,
            unannounced=unannounced,
        )

    def make(self, bell, heard):
        self.heard = heard
        if self.uploads is not None:
            self.watch = Watch(self.uploads, bell, heard)
        return self.watch

    def go_on(self, seconds, step=1):
        for _ in range(int(seconds / step)):
            self.clock.go_on(step)
            self.lookout.check()

    def told(self):
        return self.lookout.as_json()


@pytest.fixture
def post():
    return Post()


def test_watched_folder_is_scanned_seldom(post):
    """
    While events come nothing is said, and scans stay behind them.
    """
    post.lookout.start()
    post.go_on(1000)

    assert ([], 1) == (post.events, post.watch.starts)
    assert {"by": "events", "reason": "", "scan_interval_seconds": 15, "unannounced_drops": 0} == post.told()


def test_refused_watch_is_told_once_and_its_end_too(post):
    """
    However often it is tried again, the trouble is one event, and so is its end; meanwhile scans come more often.
    """
    post.watch.refusal = FULL
    post.lookout.start()
    post.go_on(600)
    during = post.told()
    post.watch.refusal = None
    post.go_on(120)

    reason = "no watch to give (sysctl x=2)"
    assert WatchingByScan(reason) == post.events[0]
    assert [WatchingByScan, WatchingByEvents] == [type(event) for event in post.events]
    assert 600 <= post.events[1].seconds <= 661
    assert {"by": "scan", "reason": reason, "scan_interval_seconds": 5, "unannounced_drops": 0} == during
    assert "events" == post.told()["by"]


def test_another_reason_is_told_anew(post):
    """
    When the system refuses for another reason than before, that is told: it wants another mend.
    """
    post.watch.refusal = FULL
    post.lookout.start()
    post.watch.refusal = StorageError("something else")
    post.go_on(60)

    assert ["no watch to give (sysctl x=2)", "something else"] == [event.reason for event in post.events]


def test_lost_watch_is_replaced_at_once(post):
    """
    A watch that ends is told with its reason, and the next one begins in the same round.
    """
    post.lookout.start()
    post.go_on(1000)
    post.watch.lost_because = "the folder was deleted"
    post.lookout.check()

    assert [WatchingByScan("the folder was deleted"), WatchingByEvents(0.0)] == post.events


def test_watch_that_is_lost_again_and_again_is_tried_ever_less(post):
    """
    With events that overflow all the time, the attempts and their lines in the log come down to one a minute.
    """
    post.lookout.start()
    for _ in range(3600):
        if post.watch.lost_because is None:
            post.watch.lost_because = "the queue overflowed"
        post.go_on(1)

    assert 60 <= post.watch.starts <= 70
    assert len(post.events) <= 140


def test_folder_that_is_gone_is_not_held_against_the_watch(post):
    """
    While the folder is not there nothing more is said than that, and it is watched in the first round with it back.
    """
    post.lookout.start()
    post.go_on(100)
    post.watch.lost_because = "the folder was moved away"
    gone = StorageError("the folder cannot be watched")
    gone.__cause__ = FileNotFoundError()
    post.watch.refusal = gone
    post.go_on(1000)
    post.watch.refusal = None
    post.lookout.check()

    assert [WatchingByScan("the folder was moved away"), WatchingByEvents(1000.0 - 1.0)] == post.events


def test_folder_that_is_not_there_yet_is_told(post):
    """
    A service that starts before its folder is there says why it does not watch.
    """
    post.watch.refusal = StorageError("the folder cannot be watched")
    post.watch.refusal.__cause__ = FileNotFoundError()
    post.lookout.start()

    assert [WatchingByScan("the folder cannot be watched")] == post.events


def test_other_peoples_file_system_is_scanned_and_nothing_is_said(tmp_path):
    """
    Where events cannot tell of every drop, scans come often from the start, a missing event is nobody's fault, and
    neither is a watch that is refused.
    """
    post = Post("nfs4 announces no changes made elsewhere")
    post.watch.refusal = FULL
    post.lookout.start()
    refused = post.told()["reason"]
    post.watch.refusal = None
    post.go_on(10)
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_text("x")
        post.lookout.found(scan(tmp_path))
        post.clock.go_on(5)

    assert [] == post.events
    assert "no watch to give (sysctl x=2)" == refused
    assert {
        "by": "scan",
        "reason": "nfs4 announces no changes made elsewhere",
        "scan_interval_seconds": 5,
        "unannounced_drops": 0,
    } == post.told()


def test_unannounced_drops_bring_the_scans_forward(post, tmp_path):
    """
    Drops that no event told of are counted, told once, and shorten the interval, until there were none for a while.
    """
    post.lookout.start()
    post.lookout.found([])
    for name in ("a.zip", "b.zip", "c.zip"):
        (tmp_path / name).write_text("x")
        post.lookout.found(scan(tmp_path))
        post.clock.go_on(2)
    post.lookout.found(scan(tmp_path))
    during = post.told()
    post.clock.go_on(900)

    assert [DropsUnannounced(1, 7.5)] == post.events
    assert {"by": "events", "reason": "", "scan_interval_seconds": 5, "unannounced_drops": 3} == during
    assert {"scan_interval_seconds": 15, "unannounced_drops": 3} == {
        name: value for name, value in post.told().items() if name not in {"by", "reason"}
    }


def test_drops_of_a_time_without_events_are_not_missed(post, tmp_path):
    """
    What came while the folder was not watched could not be announced.
    """
    post.lookout.start()
    post.lookout.found([])
    post.watch.lost_because = "overflow"
    (tmp_path / "a.zip").write_text("x")
    post.lookout.check()
    for _ in range(3):
        post.lookout.found(scan(tmp_path))
        post.clock.go_on(2)

    assert 0 == post.told()["unannounced_drops"]


def test_announced_drops_are_never_missed(tmp_path):
    """
    With a real watch, drops written in place, renamed, linked and moved in are all announced.
    """
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    post = Post(uploads=uploads)
    post.lookout.start()
    post.lookout.found(scan(uploads))
    for number in range(100):
        (uploads / f"written-{number}.zip").write_text("x")
        (uploads / f".renamed-{number}.zip.part").write_text("x")
        (uploads / f".renamed-{number}.zip.part").rename(uploads / f"renamed-{number}.zip")
        (tmp_path / "outside").write_text("x")
        (uploads / f"linked-{number}.zip").hardlink_to(tmp_path / "outside")
        (tmp_path / "outside").rename(uploads / f"moved-{number}.zip")
    post.lookout.found(drops := scan(uploads))
    (uploads / "last.zip").write_text("x")
    while "last.zip" not in post.lookout._misses._heard:
        assert post.bell.wait(10)
    post.clock.go_on(10)
    post.lookout.found(scan(uploads))

    assert 400 == len(drops)
    assert 0 == post.told()["unannounced_drops"]
    post.lookout.stop()


@given(st.lists(st.integers(0, 300), max_size=40))  # of floats, sixty after many may come to less
def test_backoff_is_bounded(times):
    """
    However long each watch held, the next attempt is never more than a minute away; after one that held it is due.
    """
    clock = Clock()
    retrying = Retrying(clock)
    for held in times:
        retrying.began()
        clock.go_on(held)
        retrying.failed()
        if held >= 60:
            assert retrying.is_due()
        clock.go_on(60.001)
        assert retrying.is_due()


def test_first_attempts_follow_each_other_closely():
    """
    The first is due at once, the next after about 1, 2, 4 seconds.
    """
    clock = Clock()
    retrying, waited = Retrying(clock), []
    for _ in range(4):
        retrying.failed()
        before = clock.monotonic()
        while not retrying.is_due():
            clock.go_on(0.25)
        waited.append(clock.monotonic() - before)

    assert 0 == waited[0]
    assert all(least <= wait <= 1.5 * least + 0.25 for least, wait in zip((1, 2, 4), waited[1:], strict=True))
