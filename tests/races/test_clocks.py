"""Clocks that jump by hours, of one replica or both: the living keep what they hold, and nothing waits for hours."""

from collections import Counter
from pathlib import Path

import pytest
from databases import connected
from processes import Storage, wait_for
from zips import Member, archive

from inbox.database.models import FileExtraction, Lease

pytestmark = pytest.mark.slow
FILES = 16
LIBRARY = next((path for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class Wall:
    """The wall clock of one service; its steady clocks, and the times of files, stay those of the machine."""

    def __init__(self, path: Path):
        self._path = path
        self.set("+0")

    def set(self, offset: str) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(offset + "\n")
        fresh.rename(self._path)

    def settings(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


@pytest.mark.skipif(LIBRARY is None, reason="faketime is not installed")
def test_jumps_of_clocks_change_nothing(tmp_path, database_url):
    """
    Two services, of which first one and then both jump forward and back by hours, call each handler once, in good time.
    """
    shared = Storage(
        tmp_path / "shared",
        database_url,
        HANDLERS="handlers_for_processes",
        LEASE_SECONDS=6,
        TEST_SLOW_SECONDS=0.1,
        WORKER_PROCESSES=1,
    )
    one, two = Wall(tmp_path / "one"), Wall(tmp_path / "two")
    jumps = [("+5h", "+0"), ("-5h", "-5h"), ("+5h", "+5h")]
    with shared.service(**one.settings()) as first, shared.service(**two.settings()) as second:
        for number, (mine, yours) in enumerate(jumps):
            names = ["flaky.txt", *(f"slow-{n}.txt" for n in range(FILES))]
            before = len(shared.calls())
            shared.drop(f"{number}.zip", archive([Member(name, b"%d" % number) for name in names]))
            wait_for(lambda before=before: len(shared.calls()) >= before + 4, "the calls")
            one.set(mine)
            two.set(yours)
            shared.wait_for_receipt(f"{number}.zip")
        statuses = [first.terminate(), second.terminate()]
        rescues = [line for line in first.lines() if line["event"] in {"WorkRescued", "BatchOverdue", "LeaseLost"}]
    with connected(database_url) as sessions, sessions.reading() as session:
        states = Counter(file.status for file in session.query(FileExtraction))
        leases = session.query(Lease).count()
    calls = Counter(Counter((doc_id, attempt) for doc_id, _, attempt in shared.calls()).values())

    assert ([0, 0], [], 0) == (statuses, rescues, leases)
    assert {"success": len(jumps) * (FILES + 1)} == states
    assert {1: len(jumps) * (FILES + 2)} == calls
