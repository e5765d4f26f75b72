"""Watching: the scan decides what is a drop, events only ring the bell."""

import os
from queue import SimpleQueue

import pytest

from inbox.core.errors import StorageError
from inbox.pipeline import watching
from inbox.pipeline.watching import Watch, is_temporary, scan
from inbox.utils.clock import Bell


@pytest.mark.parametrize(
    "name",
    [
        *(".a.zip.Xy12", "a.zip.part", "a.zip.filepart", "a.tmp", "a.zip.crdownload", "a.zip.opdownload"),
        *("a.zip.aria2", "~a.zip", "a.zip~", ".x", "A.PART"),
    ],
)
def test_scratch_files_are_nobodys_drop(name):
    """
    What clients call their unfinished copies is left alone.
    """
    assert is_temporary(name)
    assert not is_temporary("a.zip")
    assert not is_temporary("partial.zip")


def test_only_files_at_the_top_are_drops(tmp_path):
    """
    Regular files of the folder itself are drops; folders, links, pipes and scratch files are not.
    """
    (tmp_path / "a.zip").write_text("x")
    (tmp_path / "a.zip.part").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.zip").write_text("x")
    (tmp_path / "link.zip").symlink_to(tmp_path / "a.zip")
    os.mkfifo(tmp_path / "pipe.zip")

    (drop,) = scan(tmp_path)

    assert ("a.zip", tmp_path / "a.zip", 1) == (drop.name, drop.path, drop.identity.size_bytes)


def test_oldest_comes_first(tmp_path):
    """
    Drops come in the order of their last change, whatever they are called, and undecodable names are no trouble.
    """
    for number, name in enumerate((b"z.zip", b"caf\xe9.zip", b"a.zip")):
        path = tmp_path / os.fsdecode(name)
        path.write_text("x")
        os.utime(path, (9_000_000_000 + number, 9_000_000_000 + number))

    assert [b"z.zip", b"caf\xe9.zip", b"a.zip"] == [os.fsencode(drop.name) for drop in scan(tmp_path)]


def test_vanished_folder_is_not_an_empty_one(tmp_path):
    """
    A folder that is not there is trouble with the volume, never "nothing to do".
    """
    with pytest.raises(StorageError, match="mounted"):
        scan(tmp_path / "gone")


def test_file_that_goes_while_scanned_is_no_trouble(tmp_path, monkeypatch):
    """
    A drop that is taken away between the listing and the look is simply not there.
    """
    (tmp_path / "a.zip").write_text("x")

    def gone(*_arguments):
        raise FileNotFoundError

    monkeypatch.setattr(watching, "drop_from", gone)

    assert [] == scan(tmp_path)


@pytest.fixture
def watch(tmp_path):
    (tmp_path / "uploads").mkdir()
    bell = Bell()
    announced = SimpleQueue()
    watch = Watch(tmp_path / "uploads", bell, announced.put)
    watch.start()
    yield watch, bell, tmp_path, announced
    watch.stop()


@pytest.mark.parametrize("how", ["write", "move in", "rename", "delete"])
def test_change_rings_the_bell(watch, how):
    """
    A file that is written, moved in from outside, renamed or taken away wakes whoever listens.
    """
    running, bell, base, _ = watch
    (base / "outside").write_text("x")
    if how in {"rename", "delete"}:
        (base / "uploads" / "before").write_text("x")
        assert bell.wait(10)
        while bell.wait(0.2):
            pass

    {
        "write": lambda: (base / "uploads" / "a.zip").write_text("x"),
        "move in": lambda: (base / "outside").rename(base / "uploads" / "a.zip"),
        "rename": lambda: (base / "uploads" / "before").rename(base / "uploads" / "a.zip"),
        "delete": (base / "uploads" / "before").unlink,
    }[how]()

    assert bell.wait(10)
    assert running.is_alive()


@pytest.mark.parametrize("how", ["write", "move in", "rename"])
def test_drop_that_may_be_whole_is_announced(watch, how):
    """
    A file that is closed after writing, moved in from outside or renamed is announced under the name it has now.
    """
    _, _, base, announced = watch
    (base / "outside").write_text("x")
    (base / "uploads" / "a.zip.part").write_text("x")

    {
        "write": lambda: (base / "uploads" / "a.zip").write_text("x"),
        "move in": lambda: (base / "outside").rename(base / "uploads" / "a.zip"),
        "rename": lambda: (base / "uploads" / "a.zip.part").rename(base / "uploads" / "a.zip"),
    }[how]()

    while (name := announced.get(timeout=10)) == "a.zip.part":
        pass
    assert "a.zip" == name


def test_watch_that_cannot_start_says_what_to_raise(tmp_path):
    """
    Without a watch to be had the error names the limits to raise; the scan goes on without.
    """
    watch = Watch(tmp_path / "missing", Bell(), print)

    with pytest.raises(StorageError, match="max_user_watches"):
        watch.start()
    assert not watch.is_alive()
    watch.stop()
