"""What crashes leave between two steps is cleared away by whoever comes next, and nobody's work in hand with it."""

import hashlib
import os

import pytest
from pipeline_parts import House

from inbox.database.batches import release_batch
from inbox.events import BatchRegistered, DropRecognised
from inbox.pipeline.claiming import clear_locks, locked
from inbox.utils.drops import look_at
from inbox.utils.filesystem import open_atomically, safe_write_file


def crash_while_writing(path, *, only_writer):
    """Leave what a process leaves that dies before the file has its name."""
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda *_how, **_options: None)
        with open_atomically(path, only_writer=only_writer) as file:
            file.write(b"half")
            raise SystemExit


@pytest.mark.parametrize("crashes", [1, 3])
def test_only_writer_clears_what_its_crashes_left(tmp_path, crashes):
    """
    Whoever writes a file under a lock leaves it alone in its folder, however often it died on the way before.
    """
    for _ in range(crashes):
        crash_while_writing(tmp_path / "receipt.json", only_writer=True)
    before = os.listdir(tmp_path)
    safe_write_file(tmp_path / "receipt.json", "whole", only_writer=True)

    assert crashes == len(before)
    assert ["receipt.json"] == os.listdir(tmp_path)
    assert "whole" == (tmp_path / "receipt.json").read_text()


def test_one_of_several_writers_clears_nothing(tmp_path):
    """
    A file that others may be writing too is written beside what they have begun.
    """
    crash_while_writing(tmp_path / "note.json", only_writer=False)
    safe_write_file(tmp_path / "note.json", "whole")

    assert 2 == len(os.listdir(tmp_path))


def test_lock_files_of_the_dead_are_removed(tmp_path):
    """
    A lock file that nobody holds goes; the one that is held stays, and its lock with it.
    """
    (tmp_path / "left.lock").write_text("")
    with locked(tmp_path, "a.zip"):
        held = set(os.listdir(tmp_path)) - {"left.lock"}
        clear_locks(tmp_path)
        after = set(os.listdir(tmp_path))
        with locked(tmp_path, "a.zip") as is_had_twice:
            pass

    assert (held, False) == (after, is_had_twice)
    assert [] == os.listdir(tmp_path)


def test_rescue_clears_locks(house):
    """
    Each round of rescuing removes what lock files a crash left.
    """
    (house.volume.locks / "left.lock").write_text("")
    with house.instance:
        house.rescuing.round()

    assert [] == os.listdir(house.volume.locks)


def test_drop_whose_batch_has_passed_to_another_is_seen_to(house, database):
    """
    A drop is not left to its batch any more when another drop of the same content has taken that over.
    """
    dead = House(database, house.volume, house.clock, owner="host/boot/2/nonce")
    path = house.drop("a.zip")
    batch_id = hashlib.sha256(path.read_bytes()).hexdigest()
    lease = dead.claimer.claim(batch_id, look_at(path), drop_name="a.zip", zip_path="uploads/a.zip").lease
    house.take()
    now = house.clock.now()
    with database.writing() as session:
        release_batch(lease, due_at=now, counted=True, now=now, session=session)
    house.drop("again.zip")
    with locked(house.volume.locks, "a.zip"):
        House(database, house.volume, house.clock, owner="host/boot/3/nonce", events=house.events).take()
    house.take()

    assert ["again.zip"] == [event.drop for event in house.heard(BatchRegistered)]
    assert ["a.zip"] == [event.drop for event in house.heard(DropRecognised)]
