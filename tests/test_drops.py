"""Drops as files: what tells one from the next, and how one is opened without being led astray."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from inbox.core.errors import NotSettledError, StorageError
from inbox.utils.drops import identity_of, is_being_written, is_partly_unwritten, look_at, opened


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "drop.zip"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("field", ["st_dev", "st_ino", "st_size", "st_mtime_ns"])
def test_any_of_four_numbers_tells_one_drop_from_the_next(path, field):
    """
    Another file of the same size and time is another drop, and so is one on another device, of another size or time.
    """
    status = path.stat()
    numbers = {name: getattr(status, name) for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")}

    assert identity_of(status) == identity_of(SimpleNamespace(**numbers))
    assert identity_of(status) != identity_of(SimpleNamespace(**numbers | {field: numbers[field] + 1}))


def test_numbers_of_an_identity_fit_the_database():
    """
    File systems may number by all 64 bits, and times may lie before the epoch; the columns are signed.
    """
    identity = identity_of(SimpleNamespace(st_dev=2**64 - 1, st_ino=2**64 - 1, st_size=0, st_mtime_ns=-1))

    assert {2**63 - 1} == {identity.device, identity.inode, identity.modified_ns}


def test_what_is_gone_or_no_file_is_no_drop(path):
    """
    Neither a name that is not there, nor one below a file, nor a folder or a link is a drop.
    """
    (path.parent / "folder").mkdir()
    (path.parent / "link").symlink_to(path)

    assert look_at(path) is not None
    assert [None] * 4 == [look_at(path.parent / name) for name in ("gone", "drop.zip/below", "folder", "link")]


@pytest.mark.parametrize("what", ["gone", "another file", "a pipe"])
def test_drop_that_is_another_one_by_now_is_not_read(path, what):
    """
    What stands under the name instead of the drop settles again; a pipe is not waited for.
    """
    drop = look_at(path)
    path.rename(path.parent / "moved")
    {"gone": lambda: None, "another file": lambda: path.write_bytes(b"content"), "a pipe": lambda: os.mkfifo(path)}[
        what
    ]()

    with pytest.raises(NotSettledError), opened(drop):
        pass


def test_link_in_place_of_a_drop_is_not_followed(path):
    """
    A link is not opened, not even one that leads to the drop itself.
    """
    drop = look_at(path)
    path.rename(path.parent / "moved")
    path.symlink_to(path.parent / "moved")

    with pytest.raises(StorageError, match="symbolic links"), opened(replace(drop, path=path)):
        pass


def test_where_the_kernel_does_not_tell_nothing_is_concluded(tmp_path):
    """
    On what grants no lease and knows no holes, nobody is said to write, or not to, and nothing to be unwritten.
    """
    folder = os.open(tmp_path, os.O_RDONLY)
    reader, writer = os.pipe()

    assert is_being_written(folder) is None
    assert not is_partly_unwritten(reader)
    for handle in (folder, reader, writer):
        os.close(handle)
