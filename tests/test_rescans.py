"""How often the folder is scanned: pure arithmetic on misses and on time."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_parts import Clock

from inbox.pipeline import rescans
from inbox.pipeline.rescans import QUIET, Misses, Pace

SECONDS = st.floats(0.01, 10_000)
STEPS = st.lists(st.one_of(st.none(), st.floats(0, 4 * QUIET.total_seconds())), max_size=30)


def lived(pace, clock, steps):
    """Go through misses (None) and stretches of time without one."""
    for step in steps:
        if step is None:
            pace.shorten()
        else:
            clock.go_on(step)


def test_pace_halves_with_each_miss_and_relaxes_by_and_by():
    """
    From 15 s, misses lead to 7.5 s and then to the least interval; each quiet while takes back one step, for good.
    """
    clock = Clock()
    pace = Pace(15, 5, clock)
    seen = [pace.seconds()]
    for _ in range(3):
        pace.shorten()
        seen.append(pace.seconds())
    for _ in range(3):
        clock.go_on(QUIET.total_seconds())
        seen.append(pace.seconds())
    pace.shorten()
    seen.append(pace.seconds())

    assert [15, 7.5, 5, 5, 7.5, 15, 15, 7.5] == seen


@given(longest=SECONDS, shortest=SECONDS, steps=STEPS)
def test_pace_stays_within_its_bounds(longest, shortest, steps):
    """
    Whatever happens, scans are never rarer than the setting says, and never more frequent than the least interval.
    """
    clock = Clock()
    pace = Pace(longest, shortest, clock)
    lived(pace, clock, steps)

    assert min(shortest, longest) <= pace.seconds() <= longest


@given(longest=SECONDS, shortest=SECONDS, steps=STEPS, waits=st.lists(st.floats(0, 1000), max_size=10))
def test_pace_only_relaxes_while_nothing_is_missed(longest, shortest, steps, waits):
    """
    Time without a miss never shortens the interval, and enough of it brings the longest back.
    """
    clock = Clock()
    pace = Pace(longest, shortest, clock)
    lived(pace, clock, steps)
    seen = [pace.seconds()]
    for wait in waits:
        clock.go_on(wait)
        seen.append(pace.seconds())
    clock.go_on(25 * QUIET.total_seconds())

    assert sorted(seen) == seen
    assert (True, longest) == (pace.is_relaxed(), pace.seconds())


@given(longest=SECONDS, shortest=SECONDS, steps=STEPS)
def test_miss_never_lengthens_the_interval(longest, shortest, steps):
    """
    After a miss the next scan comes as soon as before or sooner, and the miss is remembered for a quiet while.
    """
    clock = Clock()
    pace = Pace(longest, shortest, clock)
    lived(pace, clock, steps)
    before = pace.seconds()
    pace.shorten()
    after = pace.seconds()
    clock.go_on((QUIET - timedelta(seconds=1)).total_seconds())

    assert after <= before
    assert (False, after) == (pace.is_relaxed(), pace.seconds())


def test_drop_without_an_event_is_missed():
    """
    A drop that a scan found is missed when its event has not come within the grace time; it is counted once.
    """
    clock = Clock()
    misses = Misses(clock)
    counts = [misses.found([])]
    misses.heard("told.zip")
    for _ in range(4):
        counts.append(misses.found(["told.zip", "untold.zip"]))
        clock.go_on(1)

    assert [0, 0, 0, 1, 0] == counts
    assert 1 == misses.total


def test_drop_that_is_gone_again_was_missed_all_the_same():
    """
    A drop may be taken before its time of grace is over.
    """
    clock = Clock()
    misses = Misses(clock)
    misses.found([])
    misses.found(["a.zip"])
    clock.go_on(2)

    assert 1 == misses.found([])


@pytest.mark.parametrize("when", ["before the scan that finds it", "two scans before", "after the scan"])
def test_event_may_come_a_little_early_or_late(when):
    """
    An event that overtakes the scan, or is overtaken by it, announces its drop.
    """
    clock = Clock()
    misses = Misses(clock)
    misses.found([])
    if when != "after the scan":
        misses.heard("a.zip")
    if when == "two scans before":
        misses.found([])
    misses.found(["a.zip"])
    if when == "after the scan":
        clock.go_on(1.9)
        misses.heard("a.zip")
    clock.go_on(10)

    assert 0 == misses.found(["a.zip"])


@pytest.mark.parametrize("interruption", [True, False])
def test_what_was_there_before_is_not_missed(interruption):
    """
    What the first scan finds was not to be announced, and neither was what came while events were off.
    """
    clock = Clock()
    misses = Misses(clock)
    misses.found(["old.zip"])
    clock.go_on(10)
    if interruption:
        misses.begin_anew()
    misses.found(["old.zip", "new.zip"])
    clock.go_on(10)

    assert (0 if interruption else 1) == misses.found(["old.zip", "new.zip"])


def test_too_many_names_leave_nobody_unannounced(monkeypatch):
    """
    When more was announced between two scans than is kept, no drop is called missed.
    """
    monkeypatch.setattr(rescans, "_MOST_NAMES", 3)
    clock = Clock()
    misses = Misses(clock)
    misses.found([])
    for number in range(1000):
        misses.heard(f"{number}.zip")
    kept = len(misses._heard)
    misses.found(["900.zip", "untold.zip"])
    clock.go_on(10)

    assert (4, 0) == (kept, misses.found(["900.zip", "untold.zip"]))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("drop"), st.booleans()),
            st.tuples(st.just("scan"), st.floats(0, 5)),
            st.tuples(st.just("take"), st.integers(0, 5)),
        ),
        max_size=40,
    )
)
def test_every_unannounced_drop_is_counted_once(steps):
    """
    However drops, events and scans follow each other, the misses are the drops that a scan saw and no event told of.
    """
    clock, present, unannounced = Clock(), [], set()
    misses = Misses(clock)
    misses.found([])
    for number, (what, how) in enumerate(steps):
        if what == "drop":
            present.append(name := f"{number}.zip")
            if how:
                misses.heard(name)
        elif what == "scan":
            unannounced |= {name for name in present if not steps[int(name.removesuffix(".zip"))][1]}
            misses.found(present)
            clock.go_on(how)
        elif how < len(present):
            del present[how]
    misses.found([])
    clock.go_on(2)
    misses.found([])

    assert len(unannounced) == misses.total
