"""The whole service, started again with a new version of its handler, or stopped while its handler is broken."""

import pytest
from databases import connected
from processes import Storage, wait_for

from inbox.database.operations import get_batch_files

pytestmark = pytest.mark.slow


@pytest.fixture
def shared(tmp_path, database_url, unused_port):
    """A service whose application does not answer."""
    url = f"http://127.0.0.1:{unused_port}/files"
    return Storage(tmp_path / "shared", database_url, HANDLER_URL=url, WORKER_PROCESSES=2)


def files_of(database_url, batch_id):
    with connected(database_url):
        return get_batch_files(batch_id)


def test_new_version_mends_what_the_former_failed(tmp_path, database_url):
    """
    Files that failed are tried again when the service starts with another version, also by `run --once`.
    """
    code = tmp_path / "versioned.py"
    first = "from inbox import handler\n\n@handler(version='1')\ndef work(file):\n    raise ValueError('a bug')\n"
    code.write_text(first)
    shared = Storage(tmp_path / "shared", database_url, HANDLERS="versioned", RETRY_ON_NEW_VERSION="true")
    shared.environment["PYTHONDONTWRITEBYTECODE"] = "1"
    shared.drop("a.zip", ["one.txt", "two.txt"])
    before = shared.run("run", "--once")
    failed = shared.receipt("a.zip")
    code.write_text(first.replace("'1'", "'2'").replace("raise ValueError('a bug')", "return 'mended'"))
    mended = shared.run("run", "--once")
    told = shared.receipt("a.zip")

    assert (1, 0) == (before.returncode, mended.returncode)
    assert ("failed", "completed") == (failed["state"], told["state"])
    assert (False, True) == tuple("FilesReoffered" in run.stdout for run in (before, mended))
    assert {("mended", "versioned.work", "2")} == {
        (file.raw_extraction, file.handler, file.handler_version) for file in files_of(database_url, told["batch_id"])
    }


def test_paused_service_stops_at_once_and_charges_nothing(shared, database_url):
    """
    Told to stop while its handler is broken, the service ends in good order; every file waits with its attempts whole.
    """
    with shared.service() as service:
        shared.drop("a.zip", [f"{number}.txt" for number in range(200)])
        wait_for(lambda: service.events("BreakerOpened"), "the pause")
        (batch,) = service.events("BatchRegistered")
        wait_for(lambda: not held(database_url, batch["batch_id"]), "the end of the pages")
        status = service.terminate()
    files = files_of(database_url, batch["batch_id"])

    assert 0 == status
    assert ({"pending"}, {0}) == ({file.status for file in files}, {file.retry_count for file in files})
    assert 1 == len(service.events("BreakerOpened"))


def held(database_url, batch_id):
    return [file for file in files_of(database_url, batch_id) if file.status in {"processing", "retrying"}]
