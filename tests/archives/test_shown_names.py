"""Names: told on one line, whatever they hold, and free of a `./` that says nothing."""

import subprocess
from shutil import which

import pytest
from zips import FOLDER, STORED, Member, archive, tree

from inbox.core.errors import ArchiveRefusedError


def refusal(unpack, data: bytes) -> ArchiveRefusedError:
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data)
    return refused.value


@pytest.mark.parametrize(
    "name",
    ["a\0b", "../\x1b[2J", "../a\r\nb", "../\u202etxt", "/a\x85b", "/\u2028"],
    ids=["NUL", "escape", "line break", "direction", "next line", "line separator"],
)
def test_refusal_shows_a_name_on_one_line(unpack, name):
    """
    A name that refuses the archive reaches logs, rows and receipts without its control characters.
    """
    error = refusal(unpack, archive([name]))

    assert str(error).isprintable()
    assert error.subject.isprintable()


def test_refusal_shows_the_beginning_of_a_name(unpack):
    """
    A name of 64 KiB does not make a message of that length.
    """
    error = refusal(unpack, archive(["../" + "n" * 65_000]))

    assert 255 == len(error.subject)


def test_names_behind_this_folder_are_taken(unpack):
    """
    A `./` before every name, and a member for the archive's own folder, say nothing about where files belong.
    """
    members = [Member("./", b"", STORED, mode=FOLDER), "./a.txt", Member("./d/", b"", STORED, mode=FOLDER), ".\\d\\b"]

    extraction, target = unpack(archive(members))

    assert {"a.txt": b"content", "d": None, "d/b": b"content"} == tree(target)
    assert (2, 2) == (extraction.members, extraction.directories)


def test_whole_folder_packed_by_bsdtar_is_taken(unpack, tmp_path):
    """
    bsdtar, told to pack `.`, writes such names.
    """
    if which("bsdtar") is None:
        pytest.skip("bsdtar is not installed")
    (tmp_path / "source" / "d").mkdir(parents=True)
    (tmp_path / "source" / "d" / "a.txt").write_bytes(b"content")
    subprocess.run(["bsdtar", "--format", "zip", "-cf", "../out.zip", "."], cwd=tmp_path / "source", check=True)

    _, target = unpack((tmp_path / "out.zip").read_bytes())

    assert {"d": None, "d/a.txt": b"content"} == tree(target)
