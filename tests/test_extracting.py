"""Extracting: room first, then a staging folder, then one rename; whatever fails leaves nothing half-published."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from zips import Member, archive, tree

from inbox.archives import Terms
from inbox.core.errors import ArchiveRefusedError, LeaseLostError, NotSettledError, RetryableError, StorageError
from inbox.domain import BatchLease
from inbox.pipeline import extracting
from inbox.pipeline.extracting import NoRoomError, clear_staging, extract
from inbox.utils import reserving
from inbox.utils.drops import look_at, opened
from inbox.utils.reserving import Reservation
from inbox.utils.volume import Volume

LEASE = BatchLease(batch_id="b" * 64, token="t" * 32, attempt=1, drop_name="drop.zip")
GOOD = archive(["a.txt", "docs/b.txt"])


@pytest.fixture
def volume(storage):
    volume = Volume.at(storage)
    volume.make()
    return volume


def extract_bytes(volume: Volume, data: bytes, **options):
    path = volume.uploads / "drop.zip"
    path.write_bytes(data)
    drop = look_at(path)
    settings = {"should_stop": lambda: False, "still_held": lambda: True} | options
    with opened(drop) as fd:
        return extract(fd, drop, LEASE, volume, Terms(), **settings)


def test_archive_is_published_as_a_whole(volume):
    """
    The members lie in the batch's own folder, and the staging folder is gone.
    """
    extraction = extract_bytes(volume, GOOD)

    assert 2 == extraction.members
    assert {"a.txt": b"content", "docs": None, "docs/b.txt": b"content"} == tree(volume.published(LEASE.batch_id))
    assert [] == list(volume.staging.iterdir())


def test_rest_of_a_dead_attempt_is_replaced(volume):
    """
    A folder that an earlier attempt published before it died gives way as a whole.
    """
    old = volume.published(LEASE.batch_id)
    old.mkdir()
    (old / "left over").write_text("from an attempt that died")

    extract_bytes(volume, GOOD)

    assert {"a.txt", "docs", "docs/b.txt"} == tree(old).keys()
    assert [] == list(volume.staging.iterdir())


def test_refused_archive_publishes_nothing(volume):
    """
    An archive that turns out damaged half-way leaves no folder.
    """
    with pytest.raises(ArchiveRefusedError):
        extract_bytes(volume, archive(["a.txt", Member("b.txt", crc=1)]))

    assert [volume.staging] == list(volume.extracted.iterdir())
    assert [] == list(volume.staging.iterdir())


def test_lost_lease_publishes_nothing(volume):
    """
    Whoever lost the batch to another worker does not publish over it.
    """
    with pytest.raises(LeaseLostError):
        extract_bytes(volume, GOOD, still_held=lambda: False)

    assert not volume.published(LEASE.batch_id).exists()
    assert [] == list(volume.staging.iterdir())


def test_drop_that_changes_meanwhile_is_not_published(volume):
    """
    A drop that was touched while it was unpacked goes back to settling.
    """

    def touch() -> bool:
        os.utime(volume.uploads / "drop.zip", ns=(1, 1))
        return False

    with pytest.raises(NotSettledError):
        extract_bytes(volume, GOOD, should_stop=touch)

    assert not volume.published(LEASE.batch_id).exists()


def test_stopping_leaves_nothing(volume):
    """
    A service that is asked to stop gives up the extraction and clears it away.
    """
    with pytest.raises(RetryableError, match="stop"):
        extract_bytes(volume, GOOD, should_stop=lambda: True)

    assert [] == list(volume.staging.iterdir())


def test_stop_is_heard_before_anything_is_written(volume):
    """
    A service that is asked to stop gives the archive up while it is still judged.
    """
    asked = []
    with pytest.raises(RetryableError):
        extract_bytes(volume, GOOD, should_stop=lambda: asked.append(any(volume.staging.iterdir())) or True)

    assert [False] == asked


def volume_with(monkeypatch, **figures):
    """Let the volume say that it has something else free."""
    true = os.statvfs("/")
    names = ("f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_favail")
    told = {name: getattr(true, name) for name in names} | figures
    monkeypatch.setattr(extracting.os, "statvfs", lambda _: SimpleNamespace(**told))


BLOCKS = extracting.HEADROOM_BYTES // 4096 + 3
"""Two files of less than a block, and a folder."""


@pytest.mark.parametrize(
    "figures",
    [{"f_frsize": 4096, "f_bavail": BLOCKS - 1}, {"f_files": 1000, "f_favail": 2}],
    ids=["bytes", "inodes"],
)
def test_archive_that_does_not_fit_waits(volume, monkeypatch, figures):
    """
    Room is looked for before the first byte, in whole blocks and inodes, and some more.
    """
    volume_with(monkeypatch, **figures)

    with pytest.raises(NoRoomError) as waiting:
        extract_bytes(volume, GOOD)

    assert "DISK_FULL" == waiting.value.reason_code
    assert waiting.value.needed_bytes > extracting.HEADROOM_BYTES
    assert [] == list(volume.staging.iterdir())


@pytest.mark.parametrize(
    "figures",
    [{"f_frsize": 4096, "f_bavail": BLOCKS}, {"f_files": 1000, "f_favail": 3}, {"f_files": 0, "f_favail": 0}],
    ids=["bytes", "inodes", "inodes that nobody counts"],
)
def test_archive_that_just_fits_is_taken(volume, monkeypatch, figures):
    """
    Room for just what is needed is enough, and where inodes are made as they are needed their count says nothing.
    """
    monkeypatch.setattr(extracting, "filesystem_type", lambda _: "ext4")
    volume_with(monkeypatch, **figures)

    assert 2 == extract_bytes(volume, GOOD).members


def test_published_archive_is_durable(volume, monkeypatch):
    """
    The rename is synced in both folders, once it has been done.
    """
    synced = []
    published = volume.published(LEASE.batch_id)
    monkeypatch.setattr(extracting, "sync_directory", lambda path: synced.append((path, published.is_dir())))

    extract_bytes(volume, GOOD)

    assert {(published.parent, True), (volume.staging, True)} == set(synced)


def test_room_is_held_before_the_first_byte(volume, monkeypatch):
    """
    What the archive will need is taken from the volume before anything is written, and given back for what is.
    """
    monkeypatch.setattr(extracting, "filesystem_type", lambda _: "ext4")
    seen = []
    write = extracting.extract_members

    def look(*arguments, before_writing, **options):
        (room,) = volume.staging.glob("*.room")
        before = room.stat().st_size
        before_writing(before)
        seen.append((before, room.stat().st_size))
        return write(*arguments, before_writing=before_writing, **options)

    monkeypatch.setattr(extracting, "extract_members", look)
    extract_bytes(volume, GOOD)

    ((held, left),) = seen
    assert held == 3 * os.statvfs(volume.staging).f_frsize
    assert 0 == left
    assert [] == list(volume.staging.iterdir())


@pytest.mark.parametrize(("times", "held"), [(extracting.PLENTY - 1, True), (extracting.PLENTY + 1, False)])
def test_plentiful_memory_is_not_reserved(volume, monkeypatch, times, held):
    """
    On a file system in memory room is held only where it is scarce, since to hold it there is to write it.
    """
    sizes = []
    needed = extracting.HEADROOM_BYTES + 3 * 4096
    monkeypatch.setattr(extracting, "filesystem_type", lambda _: "tmpfs")
    monkeypatch.setattr(extracting.shutil, "disk_usage", lambda _: SimpleNamespace(free=times * needed))
    monkeypatch.setattr(extracting, "Reservation", lambda path, size: sizes.append(size) or Reservation(path, size))
    extract_bytes(volume, GOOD)

    assert [held] == [size > 0 for size in sizes]


TROUBLE = {
    errno.ENOSPC: (NoRoomError, "DISK_FULL"),
    errno.EDQUOT: (NoRoomError, "DISK_FULL"),
    errno.EROFS: (StorageError, StorageError("").reason_code),
    errno.EIO: (StorageError, StorageError("").reason_code),
}


def failing_with(code):
    def fail(*_arguments, **_options):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(("code", "expected"), TROUBLE.items())
def test_room_that_goes_between_look_and_reservation_is_awaited(volume, monkeypatch, code, expected):
    """
    A volume that fills up in the very moment is a reason to wait, and says for how much; it leaves nothing behind.
    """
    monkeypatch.setattr(extracting, "filesystem_type", lambda _: "ext4")
    monkeypatch.setattr(reserving, "_allocate", failing_with(code))

    with pytest.raises(StorageError) as waiting:
        extract_bytes(volume, GOOD)

    assert expected == (type(waiting.value), waiting.value.reason_code)
    assert (expected[0] is NoRoomError) == ("bytes" in str(waiting.value))
    assert [] == list(volume.staging.iterdir())


@pytest.mark.parametrize(("code", "expected"), TROUBLE.items())
def test_trouble_with_the_volume_waits(volume, monkeypatch, code, expected):
    """
    A full, read-only or failing volume is no fault of the archive.
    """
    monkeypatch.setattr(os, "write", failing_with(code))

    with pytest.raises(StorageError) as waiting:
        extract_bytes(volume, GOOD)

    monkeypatch.undo()
    assert expected == (type(waiting.value), waiting.value.reason_code)
    assert [] == list(volume.staging.iterdir())


def test_only_dead_staging_is_cleared(volume):
    """
    Staging folders and reservations whose lease is gone are removed; the others, and what is neither, stay.
    """
    for token in "ab":
        (volume.staging / f"batch.{token * 32}.room").touch()
    for name in (f"batch.{'a' * 32}", f"batch.{'b' * 32}", f"batch.{'a' * 32}.old", "note"):
        (volume.staging / name / "deep").mkdir(parents=True)

    cleared = clear_staging(volume, lambda: {"b" * 32})

    assert 3 == cleared
    assert {f"batch.{'b' * 32}", f"batch.{'b' * 32}.room", "note"} == {path.name for path in volume.staging.iterdir()}


def test_missing_staging_is_nothing_to_clear(tmp_path):
    """
    A volume that has no staging folder yet has nothing to clear.
    """
    assert 0 == clear_staging(Volume.at(Path(tmp_path)), set)
