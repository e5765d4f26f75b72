"""Which refusals a young drop is spared for a while: those of damage that a copy still under way would also show."""

import pytest
from test_differentials import DIFFERENT
from test_one_lie import LIES
from test_refusing import HOSTILE

from inbox.core.errors import ArchiveRefusedError

ALL = HOSTILE | DIFFERENT | LIES
ALWAYS = {"BAD_CRC", "BAD_INDEX", "HEADERS_DIFFER", "INDEX_LIES", "TRAILING_DATA"}
"""Bytes that are not there yet may cause these, whatever the detail."""
NOW_AND_THEN = {
    "BAD_DATA": {
        "LZMA with odd properties",
        "LZMA without properties",
        "XZ without its end",
        "bytes behind the stream",
        "bzip2 damaged",
        "deflate cut short",
        "deflate damaged",
        "member behind a socket",
        "member behind an unsafe name",
        "member behind empty junk",
        "member behind junk",
        "member behind junk by another method",
    },
    "BAD_ZIP64": {
        "Zip64 end without locator",
        "Zip64 record in a comment",
        "Zip64 record of a wrong size in a comment",
        "a Zip64 record longer than its room",
        "a directory whose place no Zip64 record tells",
        "a directory whose size no Zip64 record tells",
        "another signature for the locator",
        "counts that no Zip64 record tells",
        "locator leads behind the end",
        "locator leads elsewhere",
        "two Zip64 records",
    },
    "DESCRIPTOR_DIFFERS": {
        "descriptor differs",
        "descriptor in the local header alone, and none",
        "junk for a descriptor",
        "no descriptor",
        "no descriptor at the end",
    },
    "MULTI_DISK": {
        "directory on another disk",
        "end on another disk",
        "locator for another disk",
        "locator for two disks",
        "members on another disk",
    },
    "OVERLAP": {"member reaches into the index"},
    "SIZE_LIES": {"fewer bytes than declared"},
}
"""The samples for which these are damage; what is whole and wrong, or whole and hostile, is none."""


@pytest.mark.parametrize("kind", ALL)
def test_damage_is_told_from_malice(unpack, kind):
    """
    A refusal is marked as damage when missing bytes may be its cause, and never when the archive is as it was made.
    """
    data, code = ALL[kind]

    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data)

    assert (code in ALWAYS or kind in NOW_AND_THEN.get(code, ())) == refused.value.damaged
