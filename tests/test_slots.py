"""The file that says what each worker process has in hand."""

import math
import multiprocessing
import os
import signal

from inbox.domain import InHand
from inbox.pipeline.dispatching.slots import SLOT_BYTES, Slots

SPAWN = multiprocessing.get_context("spawn")
TOKEN, DOC_ID = "a" * 32, "b" * 32


def test_each_worker_has_a_slot_of_its_own(tmp_path):
    """
    What one worker takes and puts down leaves the others' slots alone.
    """
    with Slots(tmp_path / "slots", count=3) as slots:
        slots.take(0, TOKEN, DOC_ID, 1.5)
        slots.take(2, TOKEN, "c" * 32, 2.5)
        both = slots.read_all()
        slots.put_down(0)

        assert [InHand(TOKEN, DOC_ID, 1.5), InHand(TOKEN, "c" * 32, 2.5)] == both
        assert [None, None, InHand(TOKEN, "c" * 32, 2.5)] == [slots.read(slot) for slot in range(len(slots))]


def test_new_slots_are_empty(tmp_path):
    """
    Made anew, the file forgets what an earlier service left in it.
    """
    path = tmp_path / "slots"
    with Slots(path, count=2) as slots:
        slots.take(1, TOKEN, DOC_ID, 1.0)
    with Slots(path, count=1) as slots:
        assert (1, []) == (len(slots), slots.read_all())


def test_finished_file_stays_in_its_slot(tmp_path):
    """
    Until its outcome is recorded a file stays in its slot, with no time limit on it any more.
    """
    with Slots(tmp_path / "slots", count=2) as slots:
        slots.take(0, TOKEN, DOC_ID, 1.5)
        slots.stop_clock(0)
        finished = slots.read(0)
        slots.put_down(0)

        assert (InHand(TOKEN, DOC_ID, math.inf), None) == (finished, slots.read(0))


class Watched(bytearray):
    """Memory that is looked at after every write."""

    def __setitem__(self, place, value):
        super().__setitem__(place, value)
        self.look()


def test_slot_is_whole_or_empty_at_any_moment(tmp_path):
    """
    Wherever a kill or another process's look falls between two writes, no file appears with the time of another.
    """
    slots = Slots(tmp_path / "slots", count=1)
    slots.close()
    slots._map = Watched(SLOT_BYTES)
    seen = []
    slots._map.look = lambda: seen.append(slots.read(0))
    hands = [InHand(TOKEN, DOC_ID, 1.0), InHand("c" * 32, "d" * 32, 2.0)]
    for hand in hands:
        slots.take(0, hand.token, hand.doc_id, hand.started_monotonic)
        slots.put_down(0)

    assert {None, *hands} == set(seen)


def take_and_die(path):
    Slots(path).take(1, TOKEN, DOC_ID, 7.0)
    os.kill(os.getpid(), signal.SIGKILL)


def test_slot_outlives_its_worker(tmp_path):
    """
    After SIGKILL of the process that took it, a slot still says what was in hand.
    """
    with Slots(tmp_path / "slots", count=2) as slots:
        process = SPAWN.Process(target=take_and_die, args=(tmp_path / "slots",))
        process.start()
        process.join(60)

        assert -signal.SIGKILL == process.exitcode
        assert InHand(TOKEN, DOC_ID, 7.0) == slots.read(1)
