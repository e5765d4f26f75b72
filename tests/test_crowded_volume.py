"""Two unpackers and room for one: the second archive waits until there is room, and does not fail."""

import os

import pytest
from kernel import require, within
from processes import ROOT, TESTS, Storage, wait_for
from zips import STORED, Member, archive

from inbox.pipeline.extracting import HEADROOM_BYTES

pytestmark = pytest.mark.slow
EACH = 30 * 1024**2


def test_second_extraction_waits_for_the_room_of_the_first(tmp_path):
    """
    What one unpacker has reserved the other cannot have: its archive waits, uncounted, and completes afterwards.
    """
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    base = tmp_path / "shared"
    base.mkdir()
    mount = f"mount -t tmpfs -o size={HEADROOM_BYTES + 7 * EACH // 2} tmpfs {base}; mkdir {base}/uploads"
    require(mount)
    shared = Storage(
        base,
        f"sqlite:///{tmp_path}/inbox.db",
        HANDLERS="handlers_for_processes",
        WORKER_PROCESSES=1,
        UNPACKER_PROCESSES=2,
        PYTHONPATH=f"{TESTS / 'hooked'}:{ROOT}:{TESTS}",
        TEST_HOOKS=hooks,
        LOG_FILE_PATH="-",
        AFTER_SUCCESS="delete",
    )
    names = ["slow.writing.zip", "waits.zip"]
    with shared.service(within=within(mount)) as service:
        inside = f"/proc/{service.process.pid}/root{base}"
        for name in names:
            data = archive([Member("a.bin", os.urandom(EACH), STORED)])
            hidden = f"{inside}/uploads/.{name}.part"
            with open(hidden, "wb") as file:  # noqa: PTH123 - a path into another mount namespace
                file.write(data)
            os.rename(hidden, f"{inside}/uploads/{name}")  # noqa: PTH104
            if name == names[0]:
                wait_for((hooks / f"{name}.writing").exists, "the first extraction")
        wait_for(lambda: service.events("BatchReleased"), "the want of room")
        (hooks / "go").touch()
        wait_for(lambda: len(service.events("BatchReported")) == 2, "both")
        released, refused = service.events("BatchReleased"), service.events("BatchRefused")
        claimed = [(event["drop"], event["attempt"]) for event in service.events("BatchClaimed")]
        status = service.terminate()

    assert (0, []) == (status, refused)
    assert {("waits.zip", "DISK_FULL")} == {(event["drop"], event["reason_code"]) for event in released}
    assert {(name, 1) for name in names} == set(claimed)
