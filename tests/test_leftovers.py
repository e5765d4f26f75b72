"""What crashes leave between two steps is cleared away by whoever comes next, and nobody's work in hand with it."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pipeline_parts import House

from inbox.core.errors import StorageError
from inbox.database.batches import release_batch
from inbox.events import BatchRegistered, DropRecognised
from inbox.pipeline.claiming import clear_locks, locked
from inbox.pipeline.unpackers.supervising import End
from inbox.utils import volume
from inbox.utils.drops import look_at
from inbox.utils.filesystem import open_atomically, safe_write_file

WRITING = """
import os, sys
from pathlib import Path
from inbox.utils.filesystem import open_atomically

with open_atomically(sys.argv[1], drafts=Path(sys.argv[2])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(target, drafts):
    """A process that has begun to write a file and does not finish it."""
    command = [sys.executable, "-c", WRITING, target, drafts]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process


def test_drafts_of_the_dead_are_cleared_away(house):
    """
    What a killed process was writing goes with the next round of rescuing; what a living one writes gets its name.
    """
    drafts, receipts = house.volume.drafts, house.volume.receipts
    with writer(receipts / "dead.json", drafts) as dead, writer(receipts / "living.json", drafts) as living:
        dead.kill()
        dead.wait()
        before = len(os.listdir(drafts))
        with house.instance:
            house.rescuing.round()
        after = len(os.listdir(drafts))
        living.communicate(timeout=20)

    assert (2, 1, 0) == (before, after, len(os.listdir(drafts)))
    assert ["living.json"] == os.listdir(receipts)
    assert "half" == (receipts / "living.json").read_text()


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    """
    Of several that write one file at once the last one counts, and nothing is left.
    """
    path = tmp_path / "note.json"
    with ExitStack() as stack:
        for text in ("last", "first"):
            stack.enter_context(open_atomically(path, drafts=tmp_path)).write(text.encode())

    assert ("last", ["note.json"]) == (path.read_text(), os.listdir(tmp_path))


def test_draft_that_is_cleared_before_it_is_locked_is_begun_anew(tmp_path, monkeypatch):
    """
    Whoever finds its new draft without a name, since it was taken for a dead one's, writes another.
    """
    lock, cleared = fcntl.flock, []

    def be_late(descriptor, how):
        if not cleared:
            cleared.append(os.listdir(tmp_path)[0])
            (tmp_path / cleared[0]).unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", be_late)
    safe_write_file(tmp_path / "note.json", "whole", drafts=tmp_path)

    assert 1 == len(cleared)
    assert ["note.json"] == os.listdir(tmp_path)


def test_writer_whose_draft_was_cleared_tries_later(tmp_path):
    """
    Where another machine does not see our lock, the file is not written, and the error is one that passes.
    """
    with pytest.raises(StorageError), open_atomically(tmp_path / "note.json", drafts=tmp_path) as file:
        file.write(b"whole")
        for name in os.listdir(tmp_path):
            (tmp_path / name).unlink()

    assert [] == os.listdir(tmp_path)


def test_drafts_on_another_mount_are_copied(tmp_path, monkeypatch):
    """
    Where the target's folder is a mount of its own, the file appears there whole all the same.
    """
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    replace = Path.replace

    def refuse(draft, target):
        if draft.parent == drafts:
            raise OSError(errno.EXDEV, "another mount")
        replace(draft, target)

    monkeypatch.setattr(Path, "replace", refuse)
    safe_write_file(tmp_path / "note.json", "whole", drafts=drafts)

    assert "whole" == (tmp_path / "note.json").read_text()
    assert (["drafts", "note.json"], []) == (sorted(os.listdir(tmp_path)), os.listdir(drafts))


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


def test_probe_of_a_killed_worker_is_cleared_away(house, monkeypatch):
    """
    Whoever is killed while it tries whether the volume can be written leaves nothing behind for long.
    """

    class KilledError(BaseException):
        """The process ends here."""

    def write_and_die(path, content, **options):
        safe_write_file(path, content, **options)
        raise KilledError

    monkeypatch.setattr(volume, "safe_write_file", write_and_die)
    with pytest.raises(KilledError):
        house.volume.require_room_to_write()
    probes = list(house.volume.private.rglob("*probe*"))
    with house.instance:
        house.rescuing.round()

    assert 1 == len(probes)
    assert [] == list(house.volume.private.rglob("*probe*"))


def test_volume_that_does_not_list_what_is_left_is_waited_for(house, monkeypatch):
    """
    The end of an unpacker stays to be settled while the volume is in trouble, and is no surprise that ends its watch.
    """

    def broken(_folder):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        house.rescuing.settle_dead_unpacker("me/u0.1", End.DIED)


def test_clearing_away_waits_for_the_volume(house):
    """
    What keeps a round of rescuing from clearing away is the volume's trouble, and no surprise.
    """
    house.volume.drafts.rmdir()
    with house.instance, pytest.raises(StorageError, match="cannot be cleared away: No such file"):
        house.rescuing.round()


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
