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
    bell, heard = Bell(), SimpleQueue()
    watch = Watch(tmp_path / "uploads", bell, heard.put)
    watch.start()
    yield watch, bell, heard, tmp_path
    watch.stop()


@pytest.mark.parametrize("how", ["write", "move in", "rename", "delete"])
def test_change_rings_the_bell(watch, how):
    """
    A file that is written, moved in from outside, renamed or taken away wakes whoever listens.
    """
    running, bell, _, base = watch
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
    assert running.ailment() is None


def test_arrival_is_heard_by_its_name(watch):
    """
    Whoever listens gets the name that a file has in the uploads, also one that is no UTF-8, but never a scratch file's.
    """
    _, _, heard, base = watch
    (base / "uploads" / ".a.zip.part").write_text("x")
    (base / "uploads" / ".a.zip.part").rename(base / "uploads" / "a.zip")
    (base / "uploads" / "a.zip").unlink()
    (base / "uploads" / "folder.zip").mkdir()
    (base / "uploads" / "folder.zip").rename(base / "uploads" / "folder")
    (base / "uploads" / os.fsdecode(b"caf\xe9.zip")).write_text("x")

    assert ["a.zip", os.fsdecode(b"caf\xe9.zip")] == [heard.get(timeout=10) for _ in range(2)]


def test_departure_is_not_heard(watch):
    """
    A file that is taken away has not arrived.
    """
    _, _, heard, base = watch
    for name in ("a.zip", "b.zip"):
        (base / name).write_text("x")
        (base / name).rename(base / "uploads" / name)
    (base / "uploads" / "a.zip").unlink()
    (base / "uploads" / "b.zip").rename(base / "c.zip")
    (base / "c.zip").rename(base / "uploads" / "c.zip")

    assert ["a.zip", "b.zip", "c.zip"] == [heard.get(timeout=10) for _ in range(3)]


def test_system_without_threads_says_why(tmp_path, monkeypatch):
    """
    Where no thread can be started nothing is watched, and nothing is left of the attempt.
    """

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watching.BaseObserver, "start", refuse)
    watch = Watch(tmp_path, Bell())

    with pytest.raises(StorageError, match="can't start new thread"):
        watch.start()
    assert "the folder is not watched" == watch.ailment()


def test_watch_that_cannot_start_says_why(tmp_path):
    """
    A folder that is not there is not watched, and that is trouble with the volume.
    """
    watch = Watch(tmp_path / "missing", Bell())

    with pytest.raises(StorageError, match="No such file"):
        watch.start()
    assert "the folder is not watched" == watch.ailment()
    watch.stop()
