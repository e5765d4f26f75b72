"""The intake and unpackers that take their time: nothing is handed over twice, and trouble is tried by one drop."""

import os
from datetime import timedelta

import pytest

from inbox.core.errors import ArchiveRefusedError, DatabaseUnavailableError, StorageError
from inbox.database.batches import find_batches
from inbox.database.operations import get_batch_by_id
from inbox.domain import BatchLease
from inbox.events import BatchRefused, BatchReleased, DropWaits
from inbox.pipeline.claiming import Claimed, identify
from inbox.pipeline.runner.intake import Intake
from inbox.pipeline.settling import BREATH_SECONDS, Settler
from inbox.pipeline.unpackers.fates import Busy, Claiming, Died, Done, InTrouble, TooSlow, Untaken
from inbox.pipeline.unpackers.supervising import End
from inbox.utils.drops import look_at


class Patient:
    """Unpackers that keep each drop until the test says what became of it."""

    def __init__(self, places=9):
        self.places = places
        self.handed = []
        self.waits = 0
        self.in_hand = {}
        self.fates = []

    def has_place(self, drop):
        return len(self.in_hand) < self.places

    def hand_over(self, task):
        self.handed.append(task.drop.name)
        self.in_hand[task.drop.name] = task

    def tell(self, name, fate):
        self.fates.append((self.in_hand.pop(name), fate))

    def collect(self):
        fates, self.fates = self.fates, []
        return fates

    def wait(self, seconds):
        self.waits += 1


@pytest.fixture
def patient(house):
    unpackers = Patient()
    house.intake = Intake(
        volume=house.volume,
        sessions=house.sessions,
        clock=house.clock,
        settler=house.settler,
        unpackers=unpackers,
        reporter=house.reporter,
        timing=house.intake.timing,
        emit=house.events.append,
    )
    return unpackers


def drop(house, *names):
    for number, name in enumerate(names):
        os.utime(house.drop(name), (number + 1, number + 1))


def name_batch(house, name="drop.zip"):
    with (house.volume.uploads / name).open("rb") as file:
        return identify(file.fileno(), should_stop=lambda: False)


def test_drop_in_hand_is_not_handed_over_again(house, patient):
    """
    As long as an unpacker has a drop, nobody else gets it, and the intake is not at rest.
    """
    drop(house, "drop.zip")
    house.take()
    house.take()
    busy = house.intake.is_at_rest()
    patient.tell("drop.zip", Untaken())
    house.intake.round()

    assert (["drop.zip"] * 2, False) == (patient.handed, busy)


def test_drop_that_was_replaced_while_in_hand_is_taken_for_itself(house, patient):
    """
    What became of the old content says nothing of the new one.
    """
    drop(house, "drop.zip")
    house.take()
    house.drop(members=["other.txt"])
    house.take()
    before = list(patient.handed)
    patient.tell("drop.zip", Done("b1"))
    house.take()

    assert (["drop.zip"], ["drop.zip"] * 2) == (before, patient.handed)


def test_oldest_drops_come_first(house, patient):
    """
    When there are fewer places than drops, those that came first are handed over first; the others leave no rest.
    """
    patient.places = 2
    drop(house, "c.zip", "b.zip", "a.zip")
    house.intake.round()
    house.clock.go_on(4e9)  # they carry old times
    house.intake.round()
    first = list(patient.handed)
    for name in first:
        patient.tell(name, Busy())
    patient.places = 0
    for _ in range(2):
        house.intake.round()
        house.clock.go_on(3)
    house.intake.round()
    crowded = house.intake.is_at_rest()
    patient.places = 2
    house.intake.round()

    assert ["c.zip", "b.zip"] == first
    assert (["c.zip", "b.zip"], False) == (patient.handed[2:], crowded)


def test_closed_drop_that_found_no_place_need_not_become_quiet(house, patient):
    """
    A drop that was closed while all unpackers had their hands full is taken when one is free, without its quiet time.
    """
    house.intake.settler = Settler(timedelta(hours=1), house.clock, trust_age=False, take_closed=True)
    patient.places = 0
    house.drop("drop.zip")
    house.intake.settler.announce("drop.zip")
    for places in (0, 0, 1, 1):
        patient.places = places
        house.intake.round()
        house.clock.go_on(BREATH_SECONDS)

    assert ["drop.zip"] == patient.handed


def test_trouble_is_tried_by_one_drop_at_a_time(house, patient):
    """
    However many unpackers meet the same trouble, one drop alone is handed over and waited for, until it is over.
    """
    drop(house, "a.zip", "b.zip", "c.zip")
    house.take()
    for name in list(patient.in_hand):
        patient.tell(name, InTrouble(DatabaseUnavailableError("gone")))
    errors = []
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError) as trouble:
            house.intake.round()
        errors.append(str(trouble.value))
    tried = patient.handed[3:]
    patient.tell("a.zip", Done("b1"))
    house.intake.round()

    assert (["gone"] * 2, ["a.zip"], 1) == (errors, tried, patient.waits)
    assert {"b.zip", "c.zip"} <= patient.in_hand.keys()


def test_drop_in_hand_since_before_the_trouble_keeps_nobody_from_trying(house, patient):
    """
    While a large drop is being unpacked for long, the next one tries whether the trouble is over, and the others go on.
    """
    drop(house, "long.zip", "a.zip", "b.zip")
    house.take()
    for name in ("a.zip", "b.zip"):
        patient.tell(name, InTrouble(DatabaseUnavailableError("gone")))
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError):
            house.intake.round()
    tried = patient.handed[3:]
    patient.tell("a.zip", Done("b1"))
    house.intake.round()

    assert ["a.zip"] == tried
    assert {"long.zip", "b.zip"} <= patient.in_hand.keys()


def test_drop_that_cannot_be_read_does_not_keep_others_from_their_turn(house, patient):
    """
    The next one tries whether the trouble is that of all; if not, everything goes on, and the bad one waits.
    """
    drop(house, "bad.zip", "good.zip")
    house.take()
    patient.tell("good.zip", Untaken())
    patient.tell("bad.zip", InTrouble(StorageError("cannot be read")))
    with pytest.raises(StorageError):
        house.intake.round()
    with pytest.raises(StorageError):
        house.intake.round()
    tried = list(patient.in_hand)
    patient.tell("good.zip", Done("b1"))
    house.intake.round()
    postponed = list(patient.in_hand)
    house.clock.go_on(60)
    house.intake.round()

    assert (["good.zip"], []) == (tried, [name for name in postponed if name == "bad.zip"])
    assert "bad.zip" in patient.in_hand


def test_claim_of_a_dead_database_is_given_back_under_its_owner(house, patient):
    """
    What an unpacker could not bring to an end is given back, uncounted, before anything else is handed over.
    """
    drop(house, "drop.zip")
    house.take()
    house.taker.unpacker.unpack = lambda *_arguments, **_options: None
    house.taker.take(patient.in_hand["drop.zip"])
    claimed = house.events[-1]
    left = Claiming(house.owner, claimed.batch_id, "drop.zip")
    patient.tell("drop.zip", InTrouble(DatabaseUnavailableError("gone"), left))
    with pytest.raises(DatabaseUnavailableError):
        house.intake.round()
    rests = house.intake.is_at_rest()
    house.intake._trouble = None
    house.intake.round()

    assert not rests
    assert ["UNFINISHED"] == [event.reason_code for event in house.heard(BatchReleased)]


def test_claim_that_the_database_carries_out_late_is_given_back(house, patient):
    """
    A claim that was not there when the database answered again, and appears later, is given back all the same, unless
    its drop is in hand by then.
    """
    drop(house, "drop.zip")
    house.take()
    batch_id, path = name_batch(house), house.volume.uploads / "drop.zip"
    left = Claiming(house.owner, batch_id, "drop.zip")
    patient.tell("drop.zip", InTrouble(DatabaseUnavailableError("gone"), left))
    with pytest.raises(DatabaseUnavailableError):
        house.intake.round()
    house.intake._trouble = None
    house.intake.round()
    late = house.claimer.claim(batch_id, look_at(path), drop_name="drop.zip", zip_path="uploads/drop.zip")
    house.intake.round()
    while_in_hand = house.heard(BatchReleased)
    patient.tell("drop.zip", Busy())
    house.intake.round()
    house.intake.round()

    assert isinstance(late, Claimed)
    assert [] == while_in_hand
    assert ["UNFINISHED"] == [event.reason_code for event in house.heard(BatchReleased)]
    assert "received" == get_batch_by_id(batch_id).status
    assert {} == patient.in_hand


def test_claim_for_another_drop_of_the_same_content_is_kept(house, patient):
    """
    A claim that may still be carried out is watched for; one of the same unpacker for a drop in hand is not given back.
    """
    drop(house, "first.zip", "second.zip")
    house.take()
    batch_id, path = name_batch(house, "second.zip"), house.volume.uploads / "second.zip"
    left = Claiming(house.owner, batch_id, "first.zip")
    patient.tell("first.zip", InTrouble(DatabaseUnavailableError("gone"), left))
    with pytest.raises(DatabaseUnavailableError):
        house.intake.round()
    (house.volume.uploads / "first.zip").unlink()
    house.intake.round()
    held = house.claimer.claim(batch_id, look_at(path), drop_name="second.zip", zip_path="uploads/second.zip")
    house.intake.round()

    assert isinstance(held, Claimed)
    assert [] == house.heard(BatchReleased)
    assert "extracting" == get_batch_by_id(batch_id).status


@pytest.mark.parametrize("batch_id", [None, "b1"])
def test_drop_whose_unpacker_dies_waits_longer_each_time(house, patient, batch_id):
    """
    With a batch or without one, a drop that kills its unpacker is tried less and less often.
    """
    drop(house, "drop.zip")
    house.take()
    waits = []
    for _ in range(4):
        patient.tell("drop.zip", Died(batch_id))
        house.intake.round()
        waits.append(house.intake.next_look_in())
        house.clock.go_on(waits[-1])
        house.intake.round()

    assert waits == sorted(waits)
    assert (2.0, True) == (waits[0], waits[-1] >= 16)
    assert 5 == len(patient.handed)


def test_drop_with_setbacks_comes_last(house, patient):
    """
    However old it is, a drop that has killed an unpacker does not get the next one before the others.
    """
    patient.places = 1
    drop(house, "bad.zip")
    house.take()
    patient.tell("bad.zip", Died(None))
    house.intake.round()
    drop(house, "good.zip")
    house.intake.round()
    house.clock.go_on(60)
    house.intake.round()

    assert ["bad.zip", "good.zip"] == patient.handed


def test_drop_that_is_too_slow_to_read_waits_and_says_so_once(house, patient):
    """
    Without a batch there is nothing to refuse: the drop stays, and is told of.
    """
    drop(house, "drop.zip")
    house.take()
    for _ in range(2):
        patient.tell("drop.zip", TooSlow(ArchiveRefusedError("TOO_SLOW", "it takes too long")))
        house.intake.round()
        house.clock.go_on(house.intake.next_look_in())
        house.intake.round()

    assert ["TOO_SLOW"] == [event.reason_code for event in house.heard(DropWaits)]
    assert ["drop.zip"] == house.uploads()


def extracting(house, patient):
    """Have the drop's batch claimed by an unpacker that is gone; returns the batch's id."""
    drop(house, "drop.zip")
    house.take()
    house.taker.unpacker.unpack = lambda *_arguments, **_options: None
    house.taker.take(patient.in_hand["drop.zip"])
    (house.volume.staging / "x.dead").mkdir()
    return house.events[-1].batch_id


@pytest.mark.parametrize(
    ("end", "state", "attempts", "event"),
    [
        (End.DIED, "received", 1, None),
        (End.STOPPED, "received", 0, BatchReleased),
        (End.TOO_SLOW, "quarantined", 1, BatchRefused),
    ],
)
def test_batch_of_a_dead_unpacker_is_decided_about(house, patient, end, state, attempts, event):
    """
    An attempt that died counts, one that was stopped does not, one that was too slow refuses the archive; what was
    written is cleared away, and to decide twice changes nothing.
    """
    batch_id = extracting(house, patient)
    before = len(house.events)
    for _ in range(2):
        house.rescuing.settle_dead_unpacker(house.owner, end)
    with house.sessions.reading() as session:
        record = find_batches([batch_id], session=session)[batch_id]

    assert (state, attempts) == (record.state, record.attempts)
    assert ([event] if event else []) == [type(told) for told in house.events[before:]]
    assert [] == list(house.volume.staging.iterdir())
    assert name_batch(house) == batch_id


def test_batch_that_was_taken_over_meanwhile_is_left_alone(house, patient, monkeypatch):
    """
    Between the look and the decision another service may have it; then nothing is said.
    """
    extracting(house, patient)
    before = len(house.events)
    stale = [BatchLease("b1", "a token of yesterday", 1, "drop.zip")]
    monkeypatch.setattr("inbox.database.batches.find_leases_on_batches", lambda *_arguments, **_options: stale)
    for end in (End.STOPPED, End.TOO_SLOW):
        house.rescuing.settle_dead_unpacker("nobody", end)

    assert [] == house.events[before:]
