"""Which service instances live, as far as this machine can tell."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock
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


def test_namesake_on_the_same_kernel_is_another_one(tmp_path, other):
    """
    A restarted container, of the same host name, boot and process id, is told from its predecessor, dead or alive.
    """
    name, process = other
    with Instance(tmp_path, owner(pid=2, nonce="second"), workers=1) as mine:
        while_it_lives = mine.find_dead([name, mine.owner])
        process.kill()
        process.join(30)

        assert {} == while_it_lives
        assert [name] == list(mine.find_dead([name, mine.owner]))
        mine.bury_dead([])
        assert {f"host_boot_2_second.{kind}" for kind in ("lock", "slots")} == set(os.listdir(tmp_path))
        assert "second" in mine.owner


def test_locks_tell_nothing_across_mounts(tmp_path):
    """
    The name of an owner says on which mounted file system its lock lies: elsewhere the lock may not be seen.
    """
    here = this_owner(tmp_path)
    memory = this_owner(Path("/dev/shm"))

    assert here.boot.endswith(f"-{tmp_path.stat().st_dev:x}")
    assert here.boot != memory.boot


@pytest.mark.parametrize("boot", ["unknown", "boot"])
def test_nobody_is_dead_on_a_machine_that_cannot_be_named(tmp_path, other, boot):
    """
    Where the boot cannot be known, two machines may seem to be one, and no lock is believed.
    """
    name, process = other
    process.kill()
    process.join(30)
    unknown = name.replace("/boot/", f"/{boot}/")
    for kind in ("lock", "slots"):
        (tmp_path / f"{name.replace('/', '_')}.{kind}").rename(tmp_path / f"{unknown.replace('/', '_')}.{kind}")
    with Instance(tmp_path, owner(boot=boot), workers=1) as mine:
        assert ([] if boot == "unknown" else [unknown]) == list(mine.find_dead([unknown]))


def test_hands_of_the_living_can_be_seen(tmp_path, other):
    """
    What an instance of this machine has in hand is known also while it lives, and was only held up.
    """
    name, _ = other
    with Instance(tmp_path, owner(), workers=1) as mine:
        assert ["d1"] == [hand.doc_id for hand in mine.in_hand_of(f"{name}/w0.1")]
        assert mine.in_hand_of(str(owner(pid=9))) is None
        assert mine.in_hand_of(str(owner(pid=2, boot="other"))) is None


def test_marks_of_others_are_left_to_them(tmp_path):
    """
    What another machine or mount has marked is not cleared away, though its lock seems to be free; what this host left
    before it was started anew is.
    """
    foreign = ["elsewhere_boot2_7_n", "elsewhere_boot-9_7_n", "host_boot-9_7_n"]
    before = ["host_earlier_7_n", "host_boot_7_n"]
    for stem in [*foreign, *before]:
        (tmp_path / f"{stem}.lock").touch()
        (tmp_path / f"{stem}.slots").touch()
    with Instance(tmp_path, owner(), workers=1) as mine:
        mine.bury_dead([])

    assert sorted(foreign) == sorted(path.stem for path in tmp_path.glob("*.lock"))
    assert sorted(foreign) == sorted(path.stem for path in tmp_path.glob("*.slots"))


def test_look_at_our_lock_does_not_keep_us_from_starting(tmp_path):
    """
    Another service that tries our lock just while we start, to see whether we live, is waited for.
    """
    lock = FileLock(tmp_path / "host_boot_1_n.lock", thread_local=False)
    lock.acquire()
    release = threading.Timer(0.05, lock.release)
    release.start()
    with Instance(tmp_path, owner(), workers=1) as mine:
        assert mine.slots is not None
    release.join()


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
