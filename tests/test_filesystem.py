"""Files, handled so that neither a crash nor a stranger's name does harm."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inbox.core.errors import StorageError, UnsafePathError
from inbox.utils.filesystem import (
    ensure_directory_exists,
    get_file_size,
    list_files_in_directory,
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


FILL_A_DISK = """
import os, sys
from inbox.core.errors import StorageError
from inbox.utils.filesystem import safe_read_file, safe_write_file

os.chdir(sys.argv[1])
safe_write_file("a", "old")
try:
    safe_write_file("a", bytes(1 << 20))
except StorageError as error:
    print(error.hint, os.listdir(), safe_read_file("a"))
"""


def test_full_disk_leaves_the_old_content(tmp_path):
    """
    On a disk that is really full the write waits, with a hint, and the old content stands there alone.
    """
    mounted = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"',
    ]
    if not shutil.which("unshare") or subprocess.run([*mounted, tmp_path, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    python = [sys.executable, "-c", FILL_A_DISK, tmp_path]

    done = subprocess.run([*mounted, tmp_path, *python], capture_output=True, text=True, check=False)

    assert "free some space on the volume ['a'] b'old'\n" == done.stdout
    assert "" == done.stderr


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


def test_folder_that_cannot_be_synced_is_let_off(tmp_path, monkeypatch):
    """
    File systems that cannot sync a folder do not fail the write; real trouble does.
    """
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        sync_directory(tmp_path)
