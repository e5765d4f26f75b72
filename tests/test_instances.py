"""Which service instances live, as far as this machine can tell."""

import multiprocessing
import os

import pytest
from pipeline_parts import owner

from inbox.core.errors import StorageError
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.instances import Instance, base_of, this_owner

SPAWN = multiprocessing.get_context("spawn")


def live(folder, name, entered):
    with Instance(folder, name, workers=2) as instance:
        instance.slots.take(1, "t" * 32, "d1", 5.0)
        entered.set()
        entered.wait()
        multiprocessing.Event().wait(60)


@pytest.fixture
def other(tmp_path):
    """Another service of this machine, with a file in hand."""
    name = owner(pid=2)
    entered = SPAWN.Event()
    process = SPAWN.Process(target=live, args=(tmp_path, name, entered))
    process.start()
    assert entered.wait(30)
    yield str(name), process
    process.kill()
    process.join(30)


def test_living_instance_is_not_dead(tmp_path, other):
    """
    An instance whose process runs is not found dead, nor are its marks removed.
    """
    name, _ = other
    with Instance(tmp_path, owner(), workers=1) as mine:
        assert {} == mine.find_dead([name, f"{name}/w0.1"])
        mine.bury_dead([])
        assert any(name.replace("/", "_") in entry for entry in os.listdir(tmp_path))


def test_killed_instance_is_found_with_what_it_had_in_hand(tmp_path, other):
    """
    After a kill the instance and its workers are found dead, with the file each had in hand, until it is buried.
    """
    name, process = other
    process.kill()
    process.join(30)
    with Instance(tmp_path, owner(), workers=1) as mine:
        dead = mine.find_dead([name, f"{name}/w1.1", str(owner())])

        assert {name, f"{name}/w1.1"} == dead.keys()
        assert [("t" * 32, "d1", 5.0)] == [
            (hand.token, hand.doc_id, hand.started_monotonic) for hand in dead[f"{name}/w1.1"]
        ]
        mine.bury_dead([f"{name}/w1.1"])
        assert name in mine.find_dead([name])
        mine.bury_dead([])
        assert {} == mine.find_dead([name])


def test_nothing_is_known_of_other_machines(tmp_path):
    """
    About an owner of another boot, or one that left no mark, only its lease can tell.
    """
    with Instance(tmp_path, owner(), workers=1) as mine:
        assert {} == mine.find_dead([str(owner(pid=9, boot="other")), str(owner(pid=8)), "odd"])


def test_lost_slots_are_empty_hands(tmp_path, other):
    """
    A dead instance whose slot file is damaged had nothing in hand that anybody could know.
    """
    name, process = other
    process.kill()
    process.join(30)
    (tmp_path / f"{name.replace('/', '_')}.slots").unlink()
    with Instance(tmp_path, owner(), workers=1) as mine:
        assert {name: []} == mine.find_dead([name])


def test_instance_leaves_no_mark(tmp_path):
    """
    An instance that ends in good order removes its marks.
    """
    with Instance(tmp_path, owner(), workers=1) as mine:
        assert 1 == len(mine.slots)
        assert 2 == len(os.listdir(tmp_path))
    assert [] == os.listdir(tmp_path)


def test_volume_that_takes_no_mark_is_trouble(tmp_path):
    """
    Without a place for the mark the service does not start.
    """
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError), Instance(tmp_path / "file", owner(), workers=1):
        pass


def test_each_process_start_has_its_own_name():
    """
    Two starts on one host are told apart, and a worker's name leads back to its instance.
    """
    one, two = this_owner(), this_owner()

    assert str(one) != str(two)
    assert str(one) == base_of(f"{one}/w3.17")
    assert one.pid == os.getpid()


def test_slots_are_shared(tmp_path):
    """
    What one process notes in its slot the others read, until it is put down.
    """
    with Slots(tmp_path / "slots", count=2) as mine, Slots(tmp_path / "slots") as yours:
        mine.take(1, "t" * 32, "d" * 64, 1.5)

        assert (None, "d" * 64) == (yours.read(0), yours.read(1).doc_id)
        assert 1 == len(yours.read_all())
        mine.put_down(1)
        assert [] == yours.read_all()
