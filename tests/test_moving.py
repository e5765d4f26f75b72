"""Moving a file: never over another one, never half, within a file system and across."""

import errno
import os
from pathlib import Path

import pytest

from inbox.core.errors import NotSettledError, StorageError, UnsafePathError
from inbox.utils import filesystem
from inbox.utils.filesystem import move_file


def failing(code):
    def fail(*_arguments, **_options):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("links", [None, errno.EPERM, errno.EOPNOTSUPP], ids=["hard links", "refused", "unknown"])
def test_move_never_overwrites(tmp_path, monkeypatch, links):
    """
    A file is moved to a free name only, with hard links or without.
    """
    if links:
        monkeypatch.setattr(os, "link", failing(links))
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")

    with pytest.raises(FileExistsError):
        move_file(tmp_path / "a", tmp_path / "b")
    move_file(tmp_path / "a", tmp_path / "c")

    assert {"b": "b", "c": "a"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_half_a_move_is_finished(tmp_path):
    """
    A crash that left both names is healed by moving again.
    """
    (tmp_path / "a").write_text("a")
    os.link(tmp_path / "a", tmp_path / "b")

    move_file(tmp_path / "a", tmp_path / "b")

    assert ["b"] == os.listdir(tmp_path)


def test_two_who_move_one_file_lose_nothing(tmp_path, monkeypatch):
    """
    Where somebody else finishes the very same move in between, the file is at its new name all the same.
    """
    (tmp_path / "a").write_text("a")
    link = os.link

    def overtaken(old, new, **options):
        link(old, new, **options)
        (tmp_path / "a").unlink()  # the other one's last step

    monkeypatch.setattr(os, "link", overtaken)
    move_file(tmp_path / "a", tmp_path / "b")

    assert {"b": "a"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_move_of_nothing_or_of_a_link(tmp_path):
    """
    A missing source is an error, and a link is not moved.
    """
    (tmp_path / "link").symlink_to(tmp_path / "x")

    with pytest.raises(FileNotFoundError):
        move_file(tmp_path / "x", tmp_path / "y")
    with pytest.raises(UnsafePathError):
        move_file(tmp_path / "link", tmp_path / "y")


@pytest.fixture
def other_file_system(tmp_path):
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK) or folder.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has one file system only")
    path = folder / f"inbox-test-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def test_move_across_file_systems(tmp_path, other_file_system):
    """
    Between file systems the content is copied with its time, then the source goes.
    """
    source = tmp_path / "a"
    source.write_text("content")
    os.utime(source, ns=(1_000_000_000, 2_000_000_000))

    move_file(source, other_file_system)

    assert "content" == other_file_system.read_text()
    assert 2_000_000_000 == other_file_system.stat().st_mtime_ns
    assert not source.exists()


def test_move_across_file_systems_never_overwrites(tmp_path, other_file_system):
    """
    Between file systems too, a name that is taken stays as it is.
    """
    other_file_system.write_text("mine")
    (tmp_path / "a").write_text("content")

    with pytest.raises(FileExistsError):
        move_file(tmp_path / "a", other_file_system)

    assert "mine" == other_file_system.read_text()
    assert (tmp_path / "a").exists()


def test_source_that_changes_while_copied_stays(tmp_path, other_file_system, monkeypatch):
    """
    A source that grows while it is copied is not moved.
    """
    source = tmp_path / "a"
    source.write_text("content")
    copy = filesystem.shutil.copyfileobj

    def copy_and_grow(*arguments):
        copy(*arguments)
        source.write_text("more content")

    monkeypatch.setattr(filesystem.shutil, "copyfileobj", copy_and_grow)

    with pytest.raises(NotSettledError):
        move_file(source, other_file_system)

    assert source.exists()
    assert not other_file_system.exists()


def test_failed_move_leaves_the_source(tmp_path, monkeypatch):
    """
    When the old name cannot be removed, the new one is taken back.
    """
    (tmp_path / "a").write_text("a")
    unlink = Path.unlink

    def fail_once(self, missing_ok=False):
        if self.name == "a":
            raise PermissionError(errno.EPERM, "no")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail_once)

    with pytest.raises(StorageError):
        move_file(tmp_path / "a", tmp_path / "b")

    assert ["a"] == os.listdir(tmp_path)
