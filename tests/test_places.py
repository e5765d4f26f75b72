"""Where archives go when they leave the uploads: names that fit, and a move that never takes the wrong file."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox.core.errors import StorageError
from inbox.pipeline import places
from inbox.pipeline.places import find_moved, fitting, move_aside, reason_beside
from inbox.utils.drops import look_at

BATCH = "0123456789abcdef" * 4


@pytest.fixture
def folders(tmp_path):
    for name in ("uploads", "processed"):
        (tmp_path / name).mkdir()
    return tmp_path / "uploads", tmp_path / "processed"


def put(folder, name, content="x"):
    path = folder / name
    path.write_text(content)
    return path


def move(path, folder, batch_id=BATCH):
    return move_aside(path, look_at(path).identity, folder, path.name, batch_id)


def test_name_is_kept_when_it_is_free(folders):
    """
    The first archive of a name keeps it, one of another batch gets its short id before the extension.
    """
    uploads, processed = folders
    names = [move(put(uploads, "a.tar.zip"), processed).name]
    names.append(move(put(uploads, "a.tar.zip"), processed, "f" * 64).name)

    assert ["a.tar.zip", "a.tar.ffffffffffff.zip"] == names


@pytest.mark.parametrize("name", ["n" * 251 + ".zip", "n" * 255, "é" * 125 + ".zip", "a." + "b" * 253, "...zip"])
def test_long_names_of_two_batches_stay_apart(folders, name):
    """
    However long a name is, the archive of another batch is never in the way and never overwritten.
    """
    uploads, processed = folders
    for batch_id, content in (("a" * 64, "one"), ("b" * 64, "two"), ("c" * 64, "three")):
        move(put(uploads, name, content), processed, batch_id)

    assert {"one", "two", "three"} == {path.read_text() for path in processed.iterdir()}


def test_same_batch_gives_way_to_itself(folders):
    """
    A batch that comes again and again leaves two files, not a heap.
    """
    uploads, processed = folders
    for _ in range(4):
        move(put(uploads, "a.zip"), processed)

    assert ["a.0123456789ab.zip", "a.zip"] == sorted(os.listdir(processed))


def test_move_that_died_is_found(folders):
    """
    The very file that was moved before a crash is found where it lies, and no other one of its name.
    """
    uploads, processed = folders
    put(processed, "a.zip", "other")
    path = put(uploads, "a.zip")
    identity = look_at(path).identity
    before = find_moved(identity, processed, "a.zip", BATCH)
    moved = move(path, processed)

    assert before is None
    assert moved == find_moved(identity, processed, "a.zip", BATCH)


def test_copy_between_file_systems_is_no_replacement(folders, monkeypatch):
    """
    Where a move is a copy the inode is a new one; the archive is still taken for what it is.
    """
    uploads, processed = folders
    rename = places.move_file

    def copy(source, target, **_how):
        status = source.stat()
        spare = put(source.parent, ".spare", source.read_text())
        os.utime(spare, ns=(status.st_atime_ns, status.st_mtime_ns))
        rename(spare, target)
        source.unlink()

    monkeypatch.setattr(places, "move_file", copy)

    assert processed / "a.zip" == move(put(uploads, "a.zip"), processed)


@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_new_content_is_put_back(folders, monkeypatch, how):
    """
    Content that took the place of the drop in the moment of the move is put back, in a new file or in the old one.
    """
    uploads, processed = folders
    path = put(uploads, "a.zip", "old")
    identity = look_at(path).identity
    if how == "replaced":
        put(uploads, ".new", "brand-new").rename(path)
    else:
        put(uploads, "a.zip", "brand-new")

    with pytest.raises(StorageError, match="put back"):
        move_aside(path, identity, processed, "a.zip", BATCH)

    assert "brand-new" == path.read_text()
    assert [] == os.listdir(processed)


def test_drop_that_somebody_else_moved_is_no_trouble(folders):
    """
    A drop that has gone meanwhile is where it would have been put.
    """
    uploads, processed = folders
    path = put(uploads, "a.zip")
    identity = look_at(path).identity
    path.rename(processed / "a.0123456789ab.zip")

    assert processed / "a.0123456789ab.zip" == move_aside(path, identity, processed, "a.zip", BATCH)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=400))
def test_any_name_fits(name):
    """
    Name and suffix are one path component of at most 255 bytes, and the suffix is whole.
    """
    fitted = fitting(name, ".reason.json")

    assert len(fitted.encode()) <= 255
    assert fitted.endswith(".reason.json")
    assert "/" not in fitted


def test_reason_lies_beside_its_archive(tmp_path):
    """
    The reason of an archive stands next to it, also when the name leaves no room for more.
    """
    assert tmp_path / "a.zip.reason.json" == reason_beside(tmp_path / "a.zip")
    assert 255 == len(reason_beside(tmp_path / ("n" * 255)).name)
