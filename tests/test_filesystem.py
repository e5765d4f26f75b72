"""Files, handled so that neither a crash nor a stranger's name does harm."""

import errno
import os
from pathlib import Path

import pytest

from inbox.core.errors import NotSettledError, StorageError, UnsafePathError
from inbox.utils import filesystem
from inbox.utils.filesystem import (
    ensure_directory_exists,
    get_file_size,
    list_files_in_directory,
    move_file,
    open_atomically,
    resolve_storage_path,
    safe_read_file,
    safe_write_file,
    sync_directory,
)


def failing(code):
    def fail(*_arguments, **_options):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("path", "found"),
    [("a/b.txt", "/base/a/b.txt"), ("", "/base"), (".", "/base"), ("a/../b", "/base/b"), ("/base/x", "/base/x")],
)
def test_path_below_the_base_is_resolved(fs, path, found):
    """
    A relative path, or an absolute one that lies inside, becomes absolute.
    """
    assert found == resolve_storage_path(path, "/base")


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "/etc/passwd", "/base2", "/", "a\0b"])
def test_path_that_leaves_the_base_is_refused(fs, path):
    """
    Whatever would lead out of the base is refused, by name or by spelling.
    """
    with pytest.raises(UnsafePathError) as refused:
        resolve_storage_path(path, "/base")

    assert "UNSAFE_PATH" == refused.value.reason_code


def test_link_that_leaves_the_base_is_refused(tmp_path):
    """
    A link inside the base that leads out is no way out.
    """
    base = tmp_path / "base"
    base.mkdir()
    (base / "out").symlink_to(tmp_path)
    (base / "in").symlink_to(base)

    with pytest.raises(UnsafePathError):
        resolve_storage_path("out/secret", base)
    assert str(base / "in" / "x") == resolve_storage_path("in/x", base)


def test_directory_is_made_once(fs):
    """
    A folder is made with its parents; that it exists is no error, that a file is in its way is one.
    """
    ensure_directory_exists("/a/b/c")
    ensure_directory_exists("/a/b/c")
    fs.create_file("/a/file")

    assert Path("/a/b/c").is_dir()
    with pytest.raises(FileExistsError):
        ensure_directory_exists("/a/file")


def test_files_are_listed_by_pattern(fs):
    """
    Regular files of the folder itself that match are listed in order; links, folders and dot names are not.
    """
    for name in ("b.txt", "a.txt", "c.pdf", ".hidden.txt", "deep/d.txt"):
        fs.create_file(f"/folder/{name}")
    fs.create_symlink("/folder/link.txt", "/folder/a.txt")

    assert ["/folder/a.txt", "/folder/b.txt"] == list_files_in_directory("/folder", "*.txt")
    assert 3 == len(list_files_in_directory("/folder"))
    assert ["/folder/.hidden.txt"] == list_files_in_directory("/folder", ".h*")
    with pytest.raises(FileNotFoundError):
        list_files_in_directory("/nowhere")


def test_size_is_that_of_the_content(fs):
    """
    The size is in bytes; a missing file is an error.
    """
    fs.create_file("/a", contents="größe")

    assert 7 == get_file_size("/a")
    with pytest.raises(FileNotFoundError):
        get_file_size("/b")


def test_what_was_written_is_read(tmp_path):
    """
    Text is written as UTF-8, bytes as they are, and both are read back; nothing else is left in the folder.
    """
    safe_write_file(tmp_path / "a", "größe")
    safe_write_file(tmp_path / "a", b"\x00\xff")

    assert b"\x00\xff" == safe_read_file(tmp_path / "a")
    assert ["a"] == os.listdir(tmp_path)


def test_readers_see_old_or_new(tmp_path):
    """
    Until the block ends the old content stands there, and a failure leaves it.
    """
    path = tmp_path / "a"
    path.write_bytes(b"old")

    with pytest.raises(RuntimeError), open_atomically(path) as file:
        file.write(b"new, half")
        file.flush()
        assert b"old" == path.read_bytes()
        raise RuntimeError

    assert b"old" == path.read_bytes()
    assert ["a"] == os.listdir(tmp_path)


def test_content_is_durable_before_its_name(tmp_path, monkeypatch):
    """
    The content is synced before the rename, and the folder after it.
    """
    happened = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        happened.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def renamed(self, target):
        happened.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    safe_write_file(tmp_path / "a", "x")

    assert ["file", "rename", "folder"] == happened


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_trouble_that_passes_waits(tmp_path, monkeypatch, code):
    """
    A full, read-only or failing volume is a transient error with a hint, and leaves nothing behind.
    """
    monkeypatch.setattr(os, "fsync", failing(code))

    with pytest.raises(StorageError) as waiting:
        safe_write_file(tmp_path / "a", "x")

    assert waiting.value.hint
    assert [] == os.listdir(tmp_path)


def test_only_regular_files_are_read(tmp_path):
    """
    A link and a pipe are not read: one may lead elsewhere, the other would block.
    """
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")

    for name in ("link", "pipe"):
        with pytest.raises(UnsafePathError):
            safe_read_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        safe_read_file(tmp_path / "missing")


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


def test_folder_that_cannot_be_synced_is_let_off(tmp_path, monkeypatch):
    """
    File systems that cannot sync a folder do not fail the write; real trouble does.
    """
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        sync_directory(tmp_path)


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
