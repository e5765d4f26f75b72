"""Settling: taken when quiet and whole, never before."""

import os
import tracemalloc
from datetime import timedelta

import pytest
from pipeline_parts import Clock
from zips import STORED, Member, archive

from inbox.core.errors import StorageError
from inbox.pipeline import settling
from inbox.pipeline.settling import BREATH_SECONDS, Settled, Settler, Waiting
from inbox.pipeline.watching import scan
from inbox.utils.drops import is_being_written

WHOLE = archive(["a.txt", Member("inner.zip", archive(["x"]), STORED)])


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def settler(clock):
    return Settler(timedelta(seconds=2), clock, trust_age=False)


def judge(settler, folder):
    return list(settler.judge(scan(folder)))


def test_whole_drop_is_taken_after_its_quiet_time(settler, clock, tmp_path):
    """
    A whole drop that nobody touches is settled after the quiet time, and not a moment sooner.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    verdicts = []
    for seconds in (0, 1.9, 0.1):
        clock.go_on(seconds)
        verdicts.append([type(verdict) for verdict in judge(settler, tmp_path)])

    assert [[], [], [Settled]] == verdicts


def test_any_change_begins_the_quiet_time_anew(settler, clock, tmp_path):
    """
    Growth, a new time or another file under the name starts the waiting over.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    judge(settler, tmp_path)
    for number, change in enumerate((lambda: path.write_bytes(WHOLE + bytes(5)), lambda: os.utime(path, (1, 1)))):
        clock.go_on(1.5)
        change()
        assert [] == judge(settler, tmp_path), number
        clock.go_on(1.5)
        assert [] == judge(settler, tmp_path), number
    clock.go_on(0.5)

    assert 1 == len(judge(settler, tmp_path))


def test_no_truncation_settles(settler, clock, tmp_path):
    """
    A copy that stalls at any byte is not taken, however long it is quiet.
    """
    path = tmp_path / "a.zip"
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        os.utime(path, (length, length))
        judge(settler, tmp_path)
        clock.go_on(3600)
        (verdict,) = judge(settler, tmp_path)
        assert isinstance(verdict, Waiting)


def test_reason_for_waiting_comes_along(settler, clock, tmp_path):
    """
    A quiet drop that is not whole says why, and one that is no archive says that.
    """
    (tmp_path / "cut.zip").write_bytes(WHOLE[:50])
    (tmp_path / "note.txt").write_text("no archive")
    judge(settler, tmp_path)
    clock.go_on(2)

    reasons = {verdict.drop.name: verdict.completeness.reason_code for verdict in judge(settler, tmp_path)}

    assert {"cut.zip": "NO_END_RECORD", "note.txt": "NOT_AN_ARCHIVE"} == reasons


def test_structure_is_judged_once_for_each_content(settler, clock, tmp_path, monkeypatch):
    """
    A drop that stays is not opened again at every scan, one that changes is.
    """
    looks = []
    look = settling.look_inside
    monkeypatch.setattr(settling, "look_inside", lambda drop: looks.append(drop.name) or look(drop))
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE[:60])
    for _ in range(4):
        judge(settler, tmp_path)
        clock.go_on(2)
    path.write_bytes(WHOLE)
    for _ in range(3):
        judge(settler, tmp_path)
        clock.go_on(2)

    assert ["a.zip", "a.zip"] == looks


def test_open_drop_is_awaited(settler, clock, tmp_path):
    """
    A whole and quiet drop that somebody still has open for writing waits, and is taken when it is closed.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    with path.open("r+b"):
        judge(settler, tmp_path)
        clock.go_on(60)
        (verdict,) = judge(settler, tmp_path)
        assert "BEING_WRITTEN" == verdict.completeness.reason_code
        assert settler.next_look_in() is None

    assert [Settled] == [type(verdict) for verdict in judge(settler, tmp_path)]


def test_open_drop_that_is_not_whole_says_what_it_lacks(settler, clock, tmp_path):
    """
    That somebody has it open is told of a drop only when there is nothing else against it.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE[:-1])
    with path.open("r+b"):
        judge(settler, tmp_path)
        clock.go_on(2)
        (verdict,) = judge(settler, tmp_path)

    assert "NO_END_RECORD" == verdict.completeness.reason_code


def test_writer_that_comes_while_a_drop_is_judged_is_not_held_up(tmp_path):
    """
    The lease that asks the kernel is given back at once: readers and writers open the drop as if nobody had asked.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    with path.open("rb") as reader:
        first = is_being_written(reader.fileno())
        with path.open("r+b"):
            second = is_being_written(reader.fileno())
        third = is_being_written(reader.fileno())

    assert (False, True, False) == (first, second, third)


@pytest.fixture
def prompt(clock):
    """A settler that need not wait for quiet where the kernel tells."""
    return Settler(timedelta(seconds=2), clock, trust_age=False, take_closed=True)


def look_soon(settler, clock, folder):
    """Judge when an announcement has come, and again when it counts."""
    verdicts = judge(settler, folder)
    clock.go_on(BREATH_SECONDS)
    return verdicts + judge(settler, folder)


def test_closed_drop_is_taken_at_once(prompt, clock, tmp_path):
    """
    A whole drop that was seen to be closed or moved in, and that nobody has open, does not wait for its quiet time.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    before = judge(prompt, tmp_path)
    prompt.announce("a.zip")
    at_once, wait = judge(prompt, tmp_path), prompt.next_look_in()
    clock.go_on(BREATH_SECONDS)

    (verdict,) = judge(prompt, tmp_path)

    assert ([], [], Settled) == (before, at_once, type(verdict))
    assert BREATH_SECONDS == pytest.approx(wait)


def test_breath_is_counted_from_the_announcement(prompt, clock, tmp_path):
    """
    A drop that was announced while others were worked on for long is taken in the very next round.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    prompt.announce("a.zip")
    clock.go_on(BREATH_SECONDS)

    assert [Settled] == [type(verdict) for verdict in judge(prompt, tmp_path)]


def test_announcement_that_comes_after_the_scan_counts_for_the_next(prompt, clock, tmp_path):
    """
    A drop that arrives just after a scan is taken at once in the next round; one that is gone by then is forgotten.
    """
    prompt.announce("a.zip")
    prompt.announce("gone.zip")
    before = judge(prompt, tmp_path)
    clock.go_on(BREATH_SECONDS)
    (tmp_path / "a.zip").write_bytes(WHOLE)

    verdicts = judge(prompt, tmp_path)

    (tmp_path / "gone.zip").write_bytes(WHOLE)
    assert ([], ["a.zip"]) == (before, [verdict.drop.name for verdict in verdicts])
    assert [] == judge(prompt, tmp_path)


def test_announced_drop_that_is_open_waits_for_its_end(prompt, clock, tmp_path):
    """
    While anybody has it open for writing, a whole drop is not taken; the end of that is announced again.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    with path.open("r+b"):
        prompt.announce("a.zip")
        assert [] == look_soon(prompt, clock, tmp_path)
        assert [] == look_soon(prompt, clock, tmp_path)
    prompt.announce("a.zip")

    assert [Settled] == [type(verdict) for verdict in look_soon(prompt, clock, tmp_path)]


def test_times_set_after_the_end_are_awaited(prompt, clock, tmp_path):
    """
    An announced drop that changes once more, as by a client that sets its times last, is taken as it then is.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    prompt.announce("a.zip")
    judge(prompt, tmp_path)
    clock.go_on(BREATH_SECONDS / 2)
    os.utime(path, (1, 1))
    verdicts = [judge(prompt, tmp_path) for _ in (1, 2) if clock.go_on(BREATH_SECONDS / 2) is None]
    clock.go_on(BREATH_SECONDS / 2)

    assert [[], []] == verdicts
    assert [Settled] == [type(verdict) for verdict in judge(prompt, tmp_path)]


def test_what_is_no_archive_is_not_judged_while_it_is_written(settler, clock, tmp_path):
    """
    Nobody is told that a file is no archive while somebody still writes it.
    """
    path = tmp_path / "a.txt"
    path.write_text("the beginning of something")
    with path.open("a"):
        judge(settler, tmp_path)
        clock.go_on(2)
        during = judge(settler, tmp_path)
    after = judge(settler, tmp_path)

    assert ["BEING_WRITTEN", "NOT_AN_ARCHIVE"] == [one.completeness.reason_code for one in (*during, *after)]


def test_announced_drop_that_is_not_whole_waits_in_silence(prompt, clock, tmp_path):
    """
    A client that closes and opens again is not complained about before the drop has been quiet.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE[:-1])
    prompt.announce("a.zip")
    early = look_soon(prompt, clock, tmp_path)
    wait = prompt.next_look_in()
    clock.go_on(2)

    assert [] == early
    assert 2 - BREATH_SECONDS == pytest.approx(wait)
    assert ["NO_END_RECORD"] == [verdict.completeness.reason_code for verdict in judge(prompt, tmp_path)]


def test_without_a_word_from_the_kernel_quiet_decides(prompt, clock, tmp_path, monkeypatch):
    """
    Where nobody can tell who has a drop open, an announced one waits for its quiet time like any other.
    """
    monkeypatch.setattr(settling, "is_being_written", lambda _fd: None)
    (tmp_path / "a.zip").write_bytes(WHOLE)
    prompt.announce("a.zip")
    early = look_soon(prompt, clock, tmp_path)
    clock.go_on(2)

    assert ([], [Settled]) == (early, [type(verdict) for verdict in judge(prompt, tmp_path)])


def test_held_drop_waits_whatever_is_announced(prompt, clock, tmp_path):
    """
    A drop that turned out not to be whole is not looked at again before its time.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    (drop,) = scan(tmp_path)
    prompt.hold(drop, 5)
    prompt.announce("a.zip")
    early = look_soon(prompt, clock, tmp_path)
    clock.go_on(5)

    assert ([], [Settled]) == (early, [type(verdict) for verdict in judge(prompt, tmp_path)])


def test_announcements_count_only_where_they_are_wanted(settler, clock, tmp_path):
    """
    Where events do not tell of every writer, as on a network file system, an announced drop waits as well.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    settler.announce("a.zip")

    assert [] == look_soon(settler, clock, tmp_path)


def test_announced_drop_that_is_no_archive_is_not_taken(prompt, clock, tmp_path):
    """
    To be closed is not to be whole: what is no archive waits in silence, too.
    """
    (tmp_path / "a.txt").write_text("just some text")
    prompt.announce("a.txt")
    early = look_soon(prompt, clock, tmp_path)
    clock.go_on(2)

    assert [] == early
    assert ["NOT_AN_ARCHIVE"] == [verdict.completeness.reason_code for verdict in judge(prompt, tmp_path)]


def test_announced_drop_that_goes_is_not_held(prompt, clock, tmp_path):
    """
    A drop that is taken away before its early look is still due when its quiet time ends, not later.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    prompt.announce("a.zip")
    drops = scan(tmp_path)
    list(prompt.judge(drops))
    clock.go_on(BREATH_SECONDS)
    path.unlink()

    assert [] == list(prompt.judge(drops))
    assert 2 - BREATH_SECONDS == pytest.approx(prompt.next_look_in())


def test_announcements_that_nobody_fetches_take_little_memory(prompt):
    """
    While an archive takes its time, events without end are forgotten, the oldest first.
    """
    tracemalloc.start()
    for number in range(300_000):
        prompt.announce(f"{number}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 10_000_000


def test_next_look_is_when_the_quiet_time_ends(settler, clock, tmp_path):
    """
    Whoever asks is told when a drop may have settled, and nothing when none is under way.
    """
    assert settler.next_look_in() is None
    (tmp_path / "a.zip").write_bytes(WHOLE)
    judge(settler, tmp_path)
    clock.go_on(0.5)

    assert 1.5 == settler.next_look_in()
    clock.go_on(5)
    assert 0.0 == settler.next_look_in()
    judge(settler, tmp_path)
    assert settler.next_look_in() is None


def test_drop_that_was_held_is_judged_anew(settler, clock, tmp_path, monkeypatch):
    """
    A drop that turned out not to be whole is looked at again after the time that was said, from the start.
    """
    looks = []
    look = settling.look_inside
    monkeypatch.setattr(settling, "look_inside", lambda drop: looks.append(drop.name) or look(drop))
    (tmp_path / "a.zip").write_bytes(WHOLE)
    judge(settler, tmp_path)
    clock.go_on(2)
    (settled,) = judge(settler, tmp_path)
    settler.hold(settled.drop, 10)

    assert [] == judge(settler, tmp_path)
    assert 10 == settler.next_look_in()
    clock.go_on(10)
    assert [Settled(settled.drop)] == judge(settler, tmp_path)
    assert 2 == len(looks)


def test_old_drop_need_not_wait_where_clocks_agree(clock, tmp_path):
    """
    On a local volume a drop that was there before the service has been quiet already; a network's clock proves nothing.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    old = Settler(timedelta(seconds=2), clock, trust_age=True)
    clock.go_on(60)

    assert 1 == len(judge(old, tmp_path))
    assert [] == judge(Settler(timedelta(seconds=2), clock, trust_age=False), tmp_path)


def test_change_seen_late_counts_from_when_it_was_made(clock, tmp_path):
    """
    A change that the scan saw late has been quiet since it was made, but never longer than the quiet time.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE[:-5])
    settler = Settler(timedelta(seconds=2), clock, trust_age=True)
    judge(settler, tmp_path)
    path.write_bytes(WHOLE)
    clock.go_on(30)

    assert 1 == len(judge(settler, tmp_path))


def test_change_that_keeps_size_and_time_is_seen(settler, clock, tmp_path):
    """
    A drop that becomes whole while its writer keeps size and time as they were is judged anew, and taken.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE[:60] + bytes(len(WHOLE) - 60))
    os.utime(path, (10**9, 10**9))
    judge(settler, tmp_path)
    clock.go_on(2)
    before = judge(settler, tmp_path)
    changed_ns = path.stat().st_ctime_ns
    path.write_bytes(WHOLE)
    os.utime(path, (10**9, 10**9))
    while path.stat().st_ctime_ns == changed_ns:  # the file system's clock has ticks
        os.utime(path, (10**9, 10**9))
    at_once = judge(settler, tmp_path)
    clock.go_on(2)

    assert [Waiting] == [type(verdict) for verdict in before]
    assert [] == at_once
    assert [Settled] == [type(verdict) for verdict in judge(settler, tmp_path)]


def test_drop_that_is_gone_is_forgotten(settler, clock, tmp_path):
    """
    A drop that left and comes back begins anew, though it is the same in every respect.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    drops = scan(tmp_path)
    for present in (drops, []):
        list(settler.judge(present))
    nothing = settler.next_look_in()
    clock.go_on(2)

    assert nothing is None
    assert [] == list(settler.judge(drops))


def test_drop_that_goes_between_scan_and_look_holds_up_nobody(settler, clock, tmp_path):
    """
    A drop that is taken away after the scan is passed over, and the others are judged.
    """
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(WHOLE)
    judge(settler, tmp_path)
    clock.go_on(2)
    drops = scan(tmp_path)
    drops[0].path.unlink()

    assert [Settled(drops[1])] == list(settler.judge(drops))
    assert 2.0 == settler.next_look_in()


def test_drop_that_may_not_be_read_holds_up_nobody(settler, clock, tmp_path, monkeypatch):
    """
    A drop without permission waits with that reason while others are taken, and is taken once it may be read.
    """
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(WHOLE)
    open_file = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith("a.zip"):
            raise PermissionError(13, "Permission denied")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    judge(settler, tmp_path)
    clock.go_on(2)
    verdicts = {verdict.drop.name: verdict for verdict in judge(settler, tmp_path)}
    next_look_in = settler.next_look_in()
    monkeypatch.undo()
    later = {verdict.drop.name: type(verdict) for verdict in judge(settler, tmp_path)}

    assert "UNREADABLE" == verdicts["a.zip"].completeness.reason_code
    assert isinstance(verdicts["b.zip"], Settled)
    assert next_look_in is None
    assert {"a.zip": Settled, "b.zip": Settled} == later


def test_volume_in_trouble_is_nobodys_unreadable_drop(settler, clock, tmp_path, monkeypatch):
    """
    A drop that cannot be opened because of the volume is trouble, which waits, and no verdict on the drop.
    """
    (tmp_path / "a.zip").write_bytes(WHOLE)
    judge(settler, tmp_path)
    clock.go_on(2)

    def fail(*_arguments, **_options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(StorageError):
        judge(settler, tmp_path)
    monkeypatch.undo()
    assert 1 == len(judge(settler, tmp_path))


def test_reserved_room_is_not_a_drop_yet(settler, clock, tmp_path):
    """
    A file whose full size is reserved, and whose content is partly missing, is not taken.
    """
    path = tmp_path / "a.zip"
    for written in (0, 10, len(WHOLE) // 2, len(WHOLE) - 22):
        path.write_bytes(WHOLE[:written] + bytes(len(WHOLE) - written))
        os.utime(path, (written, written))
        judge(settler, tmp_path)
        clock.go_on(3600)
        assert [Waiting] == [type(verdict) for verdict in judge(settler, tmp_path)], written


@pytest.mark.parametrize("hours", [-5, 5])
def test_clock_that_jumps_makes_no_drop_old_or_young(clock, tmp_path, hours):
    """
    When the clock jumps in the middle of a copy the quiet time and the patience with damage are as long as ever.
    """
    settler = Settler(timedelta(seconds=2), clock, trust_age=True)
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE)
    (drop,) = scan(tmp_path)
    ages = [settler.age_of(drop)]
    clock.time += timedelta(hours=hours)
    ages.append(settler.age_of(drop))
    (tmp_path / "b.zip").write_bytes(WHOLE)  # by the kernel's clock, which tells another time than ours by now
    at_once = judge(settler, tmp_path)
    clock.go_on(3)

    assert [True, True] == [age < 1 for age in ages]
    assert [] == at_once
    assert 2 == len(judge(settler, tmp_path))
    assert 3 <= settler.age_of(drop) < 4
