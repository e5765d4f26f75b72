"""Renaming folders: into nothing, or in the place of the one that was seen; where flags are lacking, substitutes."""

import ctypes
import errno

import pytest

from inbox.utils import renaming
from inbox.utils.renaming import id_of, rename_into_nothing, replace_if_it_is


@pytest.fixture(params=["flags", errno.EINVAL, errno.ENOSYS, "no function"])
def means(request, monkeypatch):
    """Rename with the flags, and as where the file system, the kernel or the C library lacks them."""
    if request.param == "no function":
        monkeypatch.setattr(renaming, "_libc", object())
    elif request.param != "flags":

        def refuse(*_):
            ctypes.set_errno(request.param)
            return -1

        monkeypatch.setattr(renaming, "_libc", type("Libc", (), {"renameat2": staticmethod(refuse)}))
    return request.param


@pytest.fixture
def folder(tmp_path):
    def make(name):
        path = tmp_path / name
        path.mkdir()
        (path / "whose").write_text(name)
        return path

    return make


def whose(path):
    return (path / "whose").read_text() if path.exists() else None


def test_free_name_is_taken(tmp_path, folder, means):
    """
    A folder is renamed to a name that is free.
    """
    rename_into_nothing(folder("mine"), tmp_path / "place")

    assert ("mine", None) == (whose(tmp_path / "place"), whose(tmp_path / "mine"))


@pytest.mark.parametrize("is_file", [False, True])
def test_taken_name_is_left_alone(tmp_path, folder, means, is_file):
    """
    Where a folder or a file is already, it stays, and so does what was to be renamed.
    """
    mine = folder("mine")
    place = tmp_path / "place"
    place.write_text("there") if is_file else folder("place")
    before = id_of(place)

    with pytest.raises(FileExistsError):
        rename_into_nothing(mine, place)

    assert before == id_of(place)
    assert "mine" == whose(mine)


def test_known_folder_is_replaced(tmp_path, folder, means):
    """
    The folder that was seen gives way, and lies in the attic.
    """
    place, mine = folder("place"), folder("mine")

    assert replace_if_it_is(place, id_of(place), mine, tmp_path / "attic")
    assert ("mine", "place", False) == (whose(place), whose(tmp_path / "attic"), mine.exists())


def test_other_folder_comes_back(tmp_path, folder, means):
    """
    A folder that is not the one that was seen is in its place afterwards, and mine is not.
    """
    seen, place, mine = folder("seen"), folder("place"), folder("mine")
    there = id_of(place)

    assert not replace_if_it_is(place, id_of(seen), mine, tmp_path / "attic")
    assert ("place", "mine", None) == (whose(place), whose(mine), whose(tmp_path / "attic"))
    assert there == id_of(place)


def test_nothing_to_replace_is_an_error(tmp_path, folder, means):
    """
    What vanished meanwhile cannot be replaced, and mine is where it was.
    """
    seen, mine = folder("seen"), folder("mine")

    with pytest.raises(FileNotFoundError):
        replace_if_it_is(tmp_path / "place", id_of(seen), mine, tmp_path / "attic")

    assert "mine" == whose(mine)


@pytest.mark.parametrize("is_known", [True, False])
def test_substitute_gives_way_to_who_is_faster(tmp_path, folder, monkeypatch, is_known):
    """
    Without an exchange, whoever publishes between the two renames stays, and is whole.
    """
    monkeypatch.setattr(renaming, "_libc", object())
    place, mine, theirs = folder("place"), folder("mine"), folder("theirs")
    seen = id_of(place) if is_known else id_of(theirs)
    monkeypatch.setattr(renaming, "id_of", lambda path: (theirs.rename(place), id_of(path))[1])

    assert not replace_if_it_is(place, seen, mine, tmp_path / "attic")
    assert ("theirs", "mine") == (whose(place), whose(mine))


def test_other_trouble_is_told(tmp_path, folder):
    """
    A rename that fails for a reason of its own is not tried by other means.
    """
    with pytest.raises(FileNotFoundError):
        rename_into_nothing(tmp_path / "gone", tmp_path / "place")

    with pytest.raises(FileNotFoundError):
        rename_into_nothing(folder("mine"), tmp_path / "no" / "place")
    assert id_of(tmp_path / "gone") is None
