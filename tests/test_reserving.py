"""Reserving: room that nobody else can take, given back to the one who writes."""

import errno
import os

import pytest

from inbox.utils import reserving
from inbox.utils.reserving import STEP_BYTES, Reservation


def test_room_is_taken_and_comes_back(tmp_path):
    """
    The room is really allocated, shrinks before as much is written, and all of it is free at the end.
    """
    path = tmp_path / "room"
    sizes = []
    with Reservation(path, 3 * STEP_BYTES) as reservation:
        sizes.append(path.stat().st_blocks * 512)
        for count in (1, STEP_BYTES - 1, 1, 3 * STEP_BYTES):
            reservation.use(count)
            sizes.append(path.stat().st_size)

    assert reservation.is_held
    assert sizes[0] >= 3 * STEP_BYTES
    assert [2 * STEP_BYTES, 2 * STEP_BYTES, STEP_BYTES, 0] == sizes[1:]
    assert not path.exists()


def test_little_is_given_back_late_and_much_at_once(tmp_path):
    """
    At every moment as much has been given back as was said to be written, or more by one step at the most.
    """
    held = 10 * STEP_BYTES
    with Reservation(tmp_path / "room", held) as reservation:
        used = 0
        for count in (5, STEP_BYTES, 3 * STEP_BYTES - 7, 100):
            reservation.use(count)
            used += count
            given_back = held - (tmp_path / "room").stat().st_size

            assert used <= given_back <= used + STEP_BYTES


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EFBIG])
def test_without_allocation_nothing_is_held(tmp_path, monkeypatch, code):
    """
    Where so much cannot be allocated to one file, it is not written full of zeros instead: nothing is held there.
    """
    monkeypatch.setattr(reserving, "_libc", Refusing(code))

    with Reservation(tmp_path / "room", 1 << 40) as reservation:
        reservation.use(1 << 30)

        assert not reservation.is_held
        assert 0 == (tmp_path / "room").stat().st_size
    assert [] == os.listdir(tmp_path)


def test_room_that_is_not_there_leaves_nothing(tmp_path, monkeypatch):
    """
    Without the room the error of the system comes through, and the file is gone.
    """
    monkeypatch.setattr(reserving, "_libc", Refusing(errno.ENOSPC))

    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="No space left"):
        Reservation(tmp_path / "room", 5)
    assert [] == os.listdir(tmp_path)
    assert len(before) == len(os.listdir("/proc/self/fd"))


def test_room_takes_no_file_that_is_there(tmp_path):
    """
    A file of that name is neither used nor removed, since it would be cut.
    """
    (tmp_path / "room").write_bytes(b"mine")

    with pytest.raises(FileExistsError):
        Reservation(tmp_path / "room", 5)
    assert b"mine" == (tmp_path / "room").read_bytes()


class Refusing:
    """A C library whose fallocate is interrupted once, and then fails."""

    def __init__(self, code):
        self.codes = [errno.EINTR, code]

    def fallocate(self, *_):
        reserving.ctypes.set_errno(self.codes.pop(0))
        return -1
