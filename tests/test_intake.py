"""The intake's memory: what it knows of drops, and for how long."""

import pytest
from pipeline_parts import House
from zips import archive

from inbox.core.errors import NotSettledError
from inbox.events import BatchRegistered, DropQuarantined, DropRecognised, DropWaits
from inbox.pipeline.claiming import identify, locked
from inbox.pipeline.runner import intake, taking
from inbox.pipeline.unpackers.fates import Changed, Task
from inbox.utils.drops import look_at, opened

OTHER = archive(["other.txt"])
CUT = OTHER[:-1]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_other_content_under_a_known_name_is_taken(database, house, is_restarted):
    """
    A batch that is under way cares for its own drop, not for whatever comes under the same name.
    """
    house.drop()
    house.take()
    if is_restarted:
        house = House(database, house.volume, house.clock, owner="host/boot/2/nonce", events=house.events)
    house.drop("aside.part", data=OTHER).rename(house.volume.uploads / "drop.zip")
    house.take()

    assert 2 == len(house.heard(BatchRegistered))


def test_drop_that_is_gone_is_no_longer_waited_for(house):
    """
    What left the uploads is forgotten, and told of again if it comes back.
    """
    path = house.drop(data=CUT)
    house.take()
    waiting = dict(house.intake.waiting)
    path.rename(house.volume.base / "aside")
    house.take()
    gone = dict(house.intake.waiting)
    (house.volume.base / "aside").rename(path)
    house.take()

    assert (["drop.zip"], {}) == (list(waiting), gone)
    assert 2 == len(house.heard(DropWaits))


def test_cut_short_drop_is_reported_once(house, monkeypatch):
    """
    A drop that will hardly become whole has one receipt that says so, not another with every scan.
    """
    reports = []
    report = house.reporter.report_incomplete
    monkeypatch.setattr(house.reporter, "report_incomplete", lambda *told: reports.append(told) or report(*told))
    house.drop(data=CUT)
    house.take()
    for _ in range(3):
        house.clock.go_on(2 * 86_400)
        house.take()

    assert 1 == len(reports)


def test_every_scan_is_told_of(house):
    """
    Whoever counts unannounced drops hears what each scan found.
    """
    scans = []
    house.intake.on_scanned = lambda drops: scans.append([drop.name for drop in drops])
    house.intake.round()
    house.drop()
    house.take()

    assert [[], ["drop.zip"], ["drop.zip"]] == scans


def test_next_look_is_when_something_is_due(house):
    """
    A drop under way is looked at when it may be quiet, one in other hands soon, and one that is taken not at all.
    """
    nothing = house.intake.next_look_in()
    house.drop()
    house.intake.round()
    settling = house.intake.next_look_in()
    with locked(house.volume.locks, "drop.zip"):
        house.take()
        postponed = house.intake.next_look_in()
    house.intake.round()
    still = len(house.heard(BatchRegistered))
    house.clock.go_on(intake.NOT_WHOLE_YET_SECONDS)
    house.intake.round()

    assert (None, 2.0, intake.NOT_WHOLE_YET_SECONDS) == (nothing, settling, postponed)
    assert (0, 1) == (still, len(house.heard(BatchRegistered)))
    assert house.intake.is_at_rest()


def test_postponed_drop_that_is_cut_short_meanwhile_is_left_to_its_writer(house):
    """
    One that is to be tried again soon, and is not whole any more when its time has come, keeps nobody busy.
    """
    path = house.drop()
    house.intake.round()
    with locked(house.volume.locks, "drop.zip"):
        house.take()
    path.write_bytes(CUT)
    house.clock.go_on(intake.NOT_WHOLE_YET_SECONDS)
    house.take()

    assert ["drop.zip"] == list(house.intake.waiting)
    assert house.intake.next_look_in() is None
    assert house.intake.is_at_rest()


def test_drop_that_is_put_to_rest_while_it_is_read_is_no_duplicate(house):
    """
    Who opened a drop before another service closed its batch and moved it away tells nobody that it came again.
    """
    drop = look_at(house.drop())
    with opened(drop) as fd:
        house.take()
        house.work()
        house.closing.round()
        fate = house.taker._take_open(Task(drop, 9.0, house.clock.monotonic()), fd, identify(fd, should_stop=bool))

    assert Changed() == fate
    assert [] == house.heard(DropRecognised)


def test_unfinished_copy_is_never_quarantined(house):
    """
    Where what is no archive is moved away, one that only has no end yet still waits.
    """
    house.intake.quarantines_not_archives = True
    house.drop(data=CUT)
    house.take()

    assert ["drop.zip"] == house.uploads()
    assert 1 == len(house.heard(DropWaits))


def test_note_in_other_hands_is_left_to_them(house):
    """
    What another service of this volume moves away is not moved by this one, too.
    """
    house.intake.quarantines_not_archives = True
    house.drop("note.txt", data=b"a note")
    with locked(house.volume.locks, "note.txt"):
        house.take()

    assert ["note.txt"] == house.uploads()
    assert [] == house.heard(DropQuarantined)


def test_note_that_somebody_may_be_writing_is_not_moved(house, monkeypatch):
    """
    Where the kernel does not tell whether anybody writes it, what is no archive yet is moved away only when it is old.
    """
    monkeypatch.setattr(taking, "is_being_written", lambda _fd: None)
    house.intake.quarantines_not_archives = True
    house.drop("note.txt", data=b"a note")
    house.take()
    young = house.uploads()
    house.clock.go_on(10)
    house.intake.round()

    assert (["note.txt"], []) == (young, house.uploads())


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_note_that_changes_in_the_moment_of_its_move_settles_again(house, monkeypatch, when):
    """
    It may be becoming an archive; what it is by then decides, after its quiet time.
    """
    house.intake.quarantines_not_archives = True
    path = house.drop("note.txt", data=b"a note")
    identify = taking.identify

    def change(fd, **options):
        monkeypatch.undo()
        path.write_bytes(OTHER)
        if when == "before":
            raise NotSettledError("it became shorter")
        return identify(fd, **options)

    monkeypatch.setattr(taking, "identify", change)
    house.take()
    unmoved = house.uploads()
    house.take()
    house.take()

    assert ["note.txt"] == unmoved
    assert [] == house.heard(DropQuarantined)
    assert 1 == len(house.heard(BatchRegistered))
