"""Bytes that are no part of the archive, before and behind it: refused, or let be where that is wanted."""

import pytest
from zips import Member, archive, tree

from inbox.core.errors import ArchiveRefusedError

MEMBERS = ("a.txt", Member("docs/b.txt", b"more"))
TREE = {"a.txt": b"content", "docs": None, "docs/b.txt": b"more"}
STUB = b'#!/bin/sh\nexec unpack "$0"\n' * 20

OUTSIDE = {
    "before, not counted": archive(MEMBERS, prefix=STUB),
    "before, counted": archive(MEMBERS, prefix=STUB, shift=len(STUB)),
    "behind": archive(MEMBERS, trailing=b"appended by somebody" * 9),
    "both": archive(MEMBERS, prefix=STUB, trailing=b"signature"),
    "before, Zip64": archive(MEMBERS, prefix=STUB, shift=len(STUB), zip64_end=True),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_archive_within_other_bytes_is_taken_where_that_is_wanted(unpack, what):
    """
    A self-extractor, or an archive to which something was appended, is refused by default and unpacked by setting.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(OUTSIDE[what])
    _, folder = unpack(OUTSIDE[what], outside=True)

    assert refused.value.reason_code in {"PREPENDED_DATA", "TRAILING_DATA"}
    assert TREE == tree(folder)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (archive(["../up"], prefix=STUB), "UNSAFE_PATH"),
        (archive([Member("a", is_listed=False), "b"], prefix=STUB), "UNLISTED_MEMBER"),
        (archive(MEMBERS) + archive(["other"]), "AMBIGUOUS_END"),
        (archive(MEMBERS) + archive(["other"]) + b"more", "AMBIGUOUS_END"),
        (archive(["a", Member("b", offset=0)], prefix=STUB), "OVERLAP"),
    ],
)
def test_other_rules_hold_within_other_bytes(unpack, data, code):
    """
    To let other bytes be is no permission for anything else.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data, outside=True)

    assert code == refused.value.reason_code
