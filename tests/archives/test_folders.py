"""Folders below the target: reached by handle, never through a link, whoever swaps them meanwhile."""

from contextlib import suppress
from pathlib import Path

import pytest
from zips import Member, archive, opened, tree

from inbox.archives import Limits, Terms, Watchman, extract_members, plan_extraction
from inbox.core.errors import ArchiveRefusedError

MANY = archive([Member(f"folder-{n % 7}/{n}.txt", b"%d" % n) for n in range(600)])


def test_swapped_folder_redirects_nothing(tmp_path):
    """
    A folder that is replaced by a link while members are written leads no write outside.
    """
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    asked = 0

    def swap() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            for n in range(7):
                (target / f"folder-{n}").rename(tmp_path / f"moved-{n}")
                (target / f"folder-{n}").symlink_to(outside)
        return False

    with opened(tmp_path, MANY) as fd:
        plan = plan_extraction(fd, Terms())
        with suppress(OSError):
            extract_members(fd, plan, target, Limits(), watchman=Watchman(Limits(), swap))

    assert 2 <= asked
    assert [] == list(outside.iterdir())


@pytest.mark.parametrize("inner", ["", "/inner"], ids=["folder", "folder above"])
def test_swapped_folder_that_is_entered_again_is_not_followed(tmp_path, inner):
    """
    Nor does one whose handle was let go in the meantime, since too many were open.
    """
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    (outside / "inner").mkdir(parents=True)
    names = [f"{n}{inner}" for n in range(70)]
    data = archive([f"{name}/{again}.txt" for again in (1, 2) for name in names])
    written = 0

    def swap(_) -> None:
        nonlocal written
        written += 1
        if written == 70:
            for n in range(70):
                (target / f"{n}").rename(tmp_path / f"moved-{n}")
                (target / f"{n}").symlink_to(outside)

    with opened(tmp_path, data) as fd:
        plan = plan_extraction(fd, Terms())
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            extract_members(fd, plan, target, Limits(), before_writing=swap)

    assert [outside / "inner"] == list(outside.rglob("*"))


def test_link_in_place_of_the_target_is_not_entered(tmp_path):
    """
    Not even the folder to write into may be a link.
    """
    target, outside = tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    target.symlink_to(outside)

    with opened(tmp_path, archive(["a.txt"])) as fd:
        plan = plan_extraction(fd, Terms())
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            extract_members(fd, plan, target, Limits())

    assert [] == list(outside.iterdir())


def test_link_in_place_of_a_folder_is_not_entered(tmp_path):
    """
    A link that stands where a folder has to be made is not followed.
    """
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "docs").symlink_to(outside)

    with pytest.raises(ArchiveRefusedError), opened(tmp_path, archive(["docs/a.txt"])) as fd:
        extract_members(fd, plan_extraction(fd, Terms()), target, Limits())

    assert [] == list(outside.iterdir())


def test_more_folders_than_handles_are_written(unpack):
    """
    However many folders take turns, few handles are kept open, none at the end, and each member ends in its own.
    """
    members = [Member(f"a/b-{n % 90}/c/{n}", b"%d" % n) for n in range(300)] + [Member("large", bytes(2 << 20))]
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir()))
    meanwhile = []

    _, target = unpack(archive(members), before_writing=lambda _: meanwhile.append(len(list(handles.iterdir()))))

    assert before == len(list(handles.iterdir()))
    assert max(meanwhile) - before < 70
    (target / "large").unlink()
    assert {f"a/b-{n % 90}/c/{n}": b"%d" % n for n in range(300)} == {
        path: content for path, content in tree(target).items() if content is not None
    }
