"""Judging an archive hears a reason to end it, wherever it may take long."""

import pytest
from zips import LINK, STORED, Member, archive, opened

from inbox.archives import Limits, Terms, Watchman, plan_extraction
from inbox.archives import watchman as watchman_module
from inbox.core.errors import ArchiveRefusedError, RetryableError

MIB = 1 << 20
LONG = {
    "many members": archive([Member(f"{number}", b"", STORED) for number in range(1000)]),
    "links": archive([Member(f"{number}", b"target", STORED, mode=LINK) for number in range(8)]),
    "skipped content": archive([Member("__MACOSX/a", bytes(8 * MIB))]),
    "a gap": archive(["a", Member("b", before=bytes(8 * MIB))]),
    "a stored stream": archive([Member("a", bytes(8 * MIB), STORED, flags=1 << 3)]),
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_judging_stops_when_asked(tmp_path, data):
    """
    A request to stop is heard while the index is judged, and as often as there is much to do.
    """
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked == 7

    with pytest.raises(RetryableError) as stopped, opened(tmp_path, data) as fd:
        plan_extraction(fd, Terms(), Watchman(Limits(), soon))

    assert "STOPPED" == stopped.value.reason_code


def test_judging_counts_against_the_time(tmp_path, monkeypatch):
    """
    An archive that takes longer to judge than to unpack it may is refused, before anything is written.
    """
    clock = iter(range(1000))
    monkeypatch.setattr(watchman_module.time, "monotonic", lambda: next(clock))

    with pytest.raises(ArchiveRefusedError) as refused, opened(tmp_path, LONG["skipped content"]) as fd:
        plan_extraction(fd, Terms(Limits(max_seconds=6)))

    assert "TOO_SLOW" == refused.value.reason_code
