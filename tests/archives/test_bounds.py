"""Every bound holds to the byte, and judging and writing cost bounded memory, whatever the archive holds."""

import tracemalloc

import pytest
from zips import DEFLATED, STORED, Member, archive, pack, tree

from inbox.archives import Limits
from inbox.archives.limits import HONEST_BYTES
from inbox.archives.tree import Tree
from inbox.core.errors import ArchiveRefusedError

LIMITS = Limits(
    max_archive_bytes=1 << 40, max_member_bytes=5_000, max_members=4, max_compression_ratio=2, max_seconds=9
)
NAMES_BYTES = 16 * 1024**2
BOUNDS = {
    "member": lambda more: LIMITS.check_member(5_000 + more, "a"),
    "members": lambda more: LIMITS.check_count(4 + more, "members"),
    "names": lambda more: LIMITS.check_names(NAMES_BYTES + more, "names"),
    "seconds": lambda more: LIMITS.check_time(9 + more),
    "archive": lambda more: LIMITS.check_total((1 << 40) + more, 1 << 40),
    "ratio": lambda more: LIMITS.check_total(2 * HONEST_BYTES + more, HONEST_BYTES),
    "honest ratio": lambda more: LIMITS.check_total(HONEST_BYTES + more, 1),
}


@pytest.mark.parametrize("check", BOUNDS.values(), ids=BOUNDS)
def test_what_is_allowed_is_allowed_to_the_last_byte(check):
    """
    Just as much as a limit says is taken, and one more is refused.
    """
    check(0)

    with pytest.raises(ArchiveRefusedError):
        check(1)


@pytest.mark.parametrize(
    "name",
    ["n" * 255, "ü" * 127, "/".join(["n" * 255] * 7 + ["n" * 128, "n" * 127]), "/".join(["d"] * 64)],
    ids=["part", "part that is not ASCII", "path", "depth"],
)
def test_names_may_be_as_long_as_a_file_system_takes(unpack, name):
    """
    255 bytes of a part, 2,048 of a path and 64 parts are written as they are.
    """
    extraction, target = unpack(archive([name]))

    assert [name] == [file.path for file in extraction.files]
    assert name in tree(target)


def test_folder_of_many_members_counts_once():
    """
    However many members lie in a deep folder, its path and those above it take memory only once.
    """
    deep = "/".join(["n" * 200] * 9)
    paths = Tree(Limits(max_members=10_000))

    for n in range(NAMES_BYTES // len(deep) // 2):
        paths.add_file(f"{deep}/{n}")

    assert 9 == len(paths.folders)


@pytest.mark.parametrize(
    "members",
    [
        [Member("a", packed=pack(b"content", DEFLATED) + bytes(24 << 20))],
        [Member(f"{n}", bytes(1000_000), STORED) for n in range(24)],
    ],
    ids=["much behind a small content", "many neighbours"],
)
def test_members_are_never_in_memory_together(unpack, members):
    """
    What is read at once stays small, also of a member that hides much behind little, and of many neighbours.
    """
    data = archive(members)
    tracemalloc.start()

    if len(members) == 1:
        assert "BAD_DATA" == refusal(unpack, data, Limits()).reason_code
    else:
        assert 24 == unpack(data)[0].members
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 << 20


def refusal(unpack, data: bytes, limits: Limits) -> ArchiveRefusedError:
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data, limits)
    return refused.value


def test_directory_of_endless_names_is_refused_unread(unpack):
    """
    A few hundred members with names of 64 KiB take more memory than as many honest ones could, and are refused for it.
    """
    names = [f"{n:03}" + "n" * 65_000 for n in range(270)]

    error = refusal(unpack, archive([Member(name, b"", STORED) for name in names]), Limits(max_members=300))

    assert "TOO_MANY_MEMBERS" == error.reason_code
    assert "16,777,216 are allowed" in str(error)


def test_folders_of_endless_paths_are_refused(unpack):
    """
    Paths that imply folder after folder of almost their own length count with all of these.
    """
    deep = "/".join(["n" * 30] * 60)

    error = refusal(unpack, archive([f"{n}/{deep}/a" for n in range(320)]), Limits(max_members=30_000))

    assert "TOO_MANY_MEMBERS" == error.reason_code
    assert "paths of folders" in str(error)


def test_characters_that_take_much_memory_count_with_it(unpack):
    """
    Paths that one wide character blows up in memory, to four times what they take in the directory, are refused for it.
    """
    wide = "/".join(["n" * 240] * 8) + "\U0001f600"

    error = refusal(
        unpack, archive([Member(f"{wide}{n}", b"", STORED) for n in range(2_500)]), Limits(max_members=3_000)
    )

    assert "TOO_MANY_MEMBERS" == error.reason_code
    assert "paths of members" in str(error)


def test_long_but_honest_paths_are_taken(unpack):
    """
    The same bound leaves room for a directory of paths of 200 bytes, each with a long comment's worth of fields.
    """
    extraction, _ = unpack(archive([Member(f"{'n' * 200}/{n}", b"") for n in range(300)]), Limits(max_members=301))

    assert 300 == extraction.members
