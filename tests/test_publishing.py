"""Publishing: of two extractions of one batch the one that holds the lease is in place, and stays there."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from zips import archive

from inbox.archives import Terms
from inbox.core.errors import LeaseLostError
from inbox.domain import BatchLease
from inbox.pipeline import extracting
from inbox.pipeline.extracting import extract
from inbox.utils import renaming
from inbox.utils.drops import look_at, opened
from inbox.utils.renaming import id_of
from inbox.utils.volume import Volume

LEASE = BatchLease(batch_id="b" * 64, token="t" * 32, attempt=1, drop_name="drop.zip")
WINNER = replace(LEASE, token="w" * 32, attempt=2)


@pytest.fixture
def volume(storage):
    volume = Volume.at(storage)
    volume.make()
    (volume.uploads / "drop.zip").write_bytes(archive(["a.txt", "docs/b.txt"]))
    return volume


@pytest.fixture(params=["flags", "substitutes"])
def means(request, monkeypatch):
    """Publish by renameat2, and as where the file system lacks it."""
    if request.param == "substitutes":
        monkeypatch.setattr(renaming, "_libc", object())


def run(volume, lease, still_held=lambda: True):
    drop = look_at(volume.uploads / "drop.zip")
    with opened(drop) as fd:
        return extract(fd, drop, lease, volume, Terms(), should_stop=lambda: False, still_held=still_held)


class Lease:
    """A lease that another worker takes over when the test says so; it then unpacks and publishes itself."""

    def __init__(self, volume: Volume):
        self.volume = volume
        self.published = volume.published(LEASE.batch_id)
        self.winner: int | None = None
        self.open_file: Path | None = None

    def be_taken_over(self):
        run(self.volume, WINNER)
        self.winner = id_of(self.published)

    def held_then_taken_over(self) -> bool:
        """The holder is told that the lease is its own, and is held up before it acts on it."""
        if self.winner is None:
            self.be_taken_over()
        return True

    def is_intact(self) -> bool:
        return self.winner == id_of(self.published) and (self.published / "docs" / "b.txt").read_bytes() == b"content"


def leave_remnant(volume) -> Path:
    path = volume.published(LEASE.batch_id)
    path.mkdir()
    (path / "left over").write_text("from an attempt that died")
    return path


def test_winner_of_an_empty_place_stays(volume, means):
    """
    A loser that was held up between its question and its rename finds the winner's folder, and leaves it alone.
    """
    lease = Lease(volume)

    def still_held():
        first = lease.winner is None
        return lease.held_then_taken_over() and first  # asked again after the name was taken, the database knows

    with pytest.raises(LeaseLostError):
        run(volume, LEASE, still_held)

    assert lease.is_intact()
    assert [] == list(volume.staging.iterdir())


def test_winner_in_the_place_of_a_remnant_stays(volume, means):
    """
    A loser that saw a remnant, and was held up until the winner had replaced it, leaves the winner's folder alone.
    """
    leave_remnant(volume)
    lease = Lease(volume)

    with pytest.raises(LeaseLostError):
        run(volume, LEASE, lease.held_then_taken_over)

    assert lease.is_intact()
    assert [] == list(volume.staging.iterdir())


def test_loser_that_publishes_late_is_replaced(volume, means):
    """
    What a loser published before the winner came to it is a remnant: the winner's folder is in place in the end.
    """
    asked = []

    def still_held():
        asked.append(1)
        if len(asked) == 1:
            run(volume, LEASE)
            asked.append(id_of(volume.published(LEASE.batch_id)))
        return True

    run(volume, WINNER, still_held)

    assert asked[1] != id_of(volume.published(LEASE.batch_id))
    assert (volume.published(LEASE.batch_id) / "a.txt").exists()
    assert [] == list(volume.staging.iterdir())


def test_place_is_never_empty_while_a_remnant_gives_way(volume, monkeypatch):
    """
    An exchange leaves no moment without a folder: whoever reads below it finds the old one or the new one.
    """
    published = leave_remnant(volume)
    seen = []
    real = renaming._renameat2

    def watched(old, new, flags):
        seen.append(published.exists())
        real(old, new, flags)
        seen.append(published.exists())

    monkeypatch.setattr(renaming, "_renameat2", watched)
    run(volume, LEASE)

    assert [True, True] == seen
    assert ["a.txt", "docs"] == sorted(os.listdir(published))


def test_lost_lease_does_not_touch_a_remnant(volume, means):
    """
    Who knows that the lease is lost leaves what lies there to the one that has it.
    """
    published = leave_remnant(volume)

    with pytest.raises(LeaseLostError):
        run(volume, LEASE, lambda: False)

    assert ["left over"] == os.listdir(published)
    assert [] == list(volume.staging.iterdir())


def test_remnant_that_cannot_be_moved_is_trouble(volume, monkeypatch):
    """
    A volume that fails in the middle of publishing makes the drop wait, and leaves the remnant where it is.
    """
    published = leave_remnant(volume)

    def fail(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(renaming, "_renameat2", fail)
    with pytest.raises(extracting.StorageError):
        run(volume, LEASE)

    assert ["left over"] == os.listdir(published)
    assert [] == list(volume.staging.iterdir())
