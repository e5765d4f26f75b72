"""Judging costs bounded memory, whatever the archive holds."""

import pytest
from zips import STORED, Member, archive

from inbox.archives import Limits
from inbox.core.errors import ArchiveRefusedError


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
