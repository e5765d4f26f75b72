"""Unpackers that die, hang or are stopped at any step: their archive alone pays for it."""

import os
import signal
from pathlib import Path

import pytest
from databases import connected
from processes import DEADLINE_SECONDS, ROOT, TESTS, Storage, wait_for
from zips import STORED, Member, archive

from inbox.database.models import FileExtraction, Lease, ProcessingJob

pytestmark = pytest.mark.slow
LARGE = 65 * 1024**2


def storage_with_hooks(folder, url):
    hooks = folder / "hooks"
    hooks.mkdir()
    return Storage(
        folder / "shared",
        url,
        HANDLERS="handlers_for_processes",
        WORKER_PROCESSES=1,
        UNPACKER_PROCESSES=2,
        PYTHONPATH=f"{TESTS / 'hooked'}:{ROOT}:{TESTS}",
        TEST_HOOKS=hooks,
    )


@pytest.fixture
def shared(tmp_path, database_url):
    return storage_with_hooks(tmp_path, database_url)


@pytest.fixture
def embedded(tmp_path):
    """A storage for claims that do not depend on the database."""
    return storage_with_hooks(tmp_path, f"sqlite:///{tmp_path / 'inbox.db'}")


def mark(shared, name):
    return Path(shared.environment["TEST_HOOKS"]) / name


def let_go(shared):
    mark(shared, "go").touch()


def content_of(name):
    return archive([Member("a.txt", name.encode())])


def jobs(shared):
    """Return state, attempts and reason of every batch, by the name of its drop."""
    with connected(shared.environment["DATABASE_URL"]) as sessions, sessions.reading() as session:
        return {job.drop_name: (job.status, job.attempt_count, job.reason_code) for job in session.query(ProcessingJob)}


def leftovers(shared):
    """Return what lies in staging, and how many leases and rows there are."""
    with connected(shared.environment["DATABASE_URL"]) as sessions, sessions.reading() as session:
        leases, rows = session.query(Lease).count(), session.query(FileExtraction).count()
    return os.listdir(shared.base / "extracted" / ".staging"), leases, rows


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("step", "attempts"), [("reading", 1), ("writing", 2), ("extracted", 2)])
def test_killed_unpacker_is_replaced_and_its_drop_completes(shared, step, attempts):
    """
    Killed while it reads a drop, unpacks it, or has just published it, an unpacker costs that drop an attempt at most.
    """
    name = f"kill-once.{step}.zip"
    with shared.service() as service:
        shared.drop(name, content_of(name))
        told = shared.wait_for_receipt(name)
        wait_for(lambda: not os.listdir(shared.base / "uploads"), "the move")
        died = service.events("UnpackerDied")
        status = service.terminate()

    assert (0, "completed", 1) == (status, told["state"], told["succeeded"])
    assert [(-signal.SIGKILL, name)] == [(event["exit_code"], event["drop"]) for event in died]
    assert {name: ("completed", attempts, None)} == jobs(shared)
    assert ([], 0, 1) == leftovers(shared)
    assert 1 == len(shared.calls())


def test_archive_that_kills_every_unpacker_fails_alone(shared):
    """
    An archive that crashes the decoder ends in quarantine as EXTRACTION_DIED when its attempts are used up; others,
    before and after it, are not touched.
    """
    name = "segfault.writing.zip"
    with shared.service(UNPACKER_PROCESSES=1) as service:
        shared.drop(name, content_of(name))
        wait_for(lambda: service.events("UnpackerDied"), "the first death")
        shared.drop("well.zip", content_of("well"))
        well, told = shared.wait_for_receipt("well.zip"), shared.wait_for_receipt(name)
        wait_for(lambda: not os.listdir(shared.base / "uploads"), "the moves")
        deaths, refusals = service.events("UnpackerDied"), service.events("BatchRefused")
        status = service.terminate()

    assert ("completed", "failed", "EXTRACTION_DIED") == (well["state"], told["state"], told["reason_code"])
    assert (0, 3) == (status, len(deaths))
    assert [(name, "EXTRACTION_DIED")] == [(event["drop"], event["reason_code"]) for event in refusals]
    assert {name: ("failed", 3, "EXTRACTION_DIED"), "well.zip": ("completed", 1, None)} == jobs(shared)
    assert ([], 0, 1) == leftovers(shared)
    assert [name] == [path.name for path in (shared.base / "quarantine").glob("*.zip")]


def test_drop_that_kills_before_it_has_a_batch_waits_longer_each_time(embedded):
    """
    A drop whose unpacker dies while it reads it holds up nobody, and is tried less and less often.
    """
    embedded.environment["RETRY_BASE_DELAY_SECONDS"] = "0.3"
    name = "kill.reading.zip"
    with embedded.service(UNPACKER_PROCESSES=1) as service:
        embedded.drop(name, content_of(name))
        wait_for(lambda: len(service.events("UnpackerDied")) >= 2, "two deaths")
        embedded.drop("well.zip", content_of("well"))
        told = embedded.wait_for_receipt("well.zip")
        wait_for(lambda: len(service.events("UnpackerDied")) >= 3, "the third death")
        status = service.terminate()

    assert (0, "completed") == (status, told["state"])
    assert {"well.zip": ("completed", 1, None)} == jobs(embedded)
    assert [name] == os.listdir(embedded.base / "uploads")


def test_decoder_that_hangs_is_killed_and_its_archive_refused(embedded):
    """
    An unpacker that hears nothing any more is killed at its limit, and the archive goes to quarantine as TOO_SLOW.
    """
    name = "hang.writing.zip"
    with embedded.service(TEST_LIMIT_SECONDS=1) as service:
        embedded.drop(name, content_of(name))
        told = embedded.wait_for_receipt(name)
        wait_for(lambda: not os.listdir(embedded.base / "uploads"), "the move")
        died = service.events("UnpackerDied")
        status = service.terminate()

    assert (0, "quarantined", "TOO_SLOW") == (status, told["state"], told["reason_code"])
    assert [name] == [event["drop"] for event in died]
    assert {name: ("quarantined", 1, "TOO_SLOW")} == jobs(embedded)
    assert ([], 0, 0) == leftovers(embedded)


def test_small_drop_passes_large_ones(embedded):
    """
    Of two unpackers large drops have one: the second large one waits, and a small one that came last does not.
    """
    large = [f"slow.extracting.{number}.zip" for number in range(2)]
    with embedded.service() as service:
        for name in large:
            embedded.drop(name, archive([Member(name, bytes(LARGE), STORED)]))
        wait_for(lambda: any(mark(embedded, f"{name}.extracting").exists() for name in large), "a large one")
        embedded.drop("small.zip", content_of("small"))
        embedded.wait_for_receipt("small.zip")
        begun = [event["drop"] for event in service.events("BatchClaimed")]
        let_go(embedded)
        told = [embedded.wait_for_receipt(name)["state"] for name in large]
        status = service.terminate()

    assert (0, ["completed"] * 2) == (status, told)
    assert {large[0], "small.zip"} == set(begun)


def test_signal_stops_an_extraction_and_gives_it_back(shared):
    """
    Asked to stop, a running extraction ends, its batch goes back uncounted, and the next start completes it.
    """
    name = "slow.extracting.zip"
    with shared.service() as service:
        shared.drop(name, content_of(name))
        wait_for(mark(shared, f"{name}.extracting").exists, "the extraction")
        status = service.terminate()
    stopped = jobs(shared), leftovers(shared)
    let_go(shared)
    with shared.service() as service:
        told = shared.wait_for_receipt(name)
        service.terminate()

    assert (0, []) == (status, service.events("UnpackerDied"))
    assert ({name: ("received", 0, None)}, ([], 0, 0)) == stopped
    assert "completed" == told["state"]


def test_unpacker_that_does_not_hear_is_killed_within_the_grace(embedded):
    """
    An unpacker that hangs while the service stops is killed in time, and its attempt is not counted.
    """
    name = "hang.writing.zip"
    with embedded.service(SHUTDOWN_GRACE_SECONDS=3) as service:
        embedded.drop(name, content_of(name))
        wait_for(mark(embedded, f"{name}.writing").exists, "the hang")
        unpackers = service.unpackers()
        status = service.terminate()

    assert 0 == status
    assert not any(map(is_alive, unpackers))
    assert {name: ("received", 0, None)} == jobs(embedded)
    assert ([], 0, 0) == leftovers(embedded)


@pytest.mark.parametrize("end", ["second signal", "kill"])
def test_unpacker_that_hangs_ends_with_the_service(embedded, end):
    """
    However the service ends, no unpacker is left with the lock of a drop in hand: the next start takes it.
    """
    name = "hang-once.writing.zip"
    with embedded.service() as service:
        embedded.drop(name, content_of(name))
        wait_for(mark(embedded, f"{name}.writing").exists, "the hang")
        unpackers = service.unpackers()
        if end == "kill":
            service.process.kill()
        else:
            service.process.send_signal(signal.SIGTERM)
            wait_for(lambda: service.events("ServiceStopping"))
            wait_for(lambda: service.process.send_signal(signal.SIGTERM) or service.process.poll(), "the end")
        service.process.wait(DEADLINE_SECONDS)
        wait_for(lambda: not any(map(is_alive, unpackers)), "their end")
    with embedded.service() as service:
        told = embedded.wait_for_receipt(name)
        service.terminate()

    assert 1 <= len(unpackers)
    assert "completed" == told["state"]
    assert {name: ("completed", 2, None)} == jobs(embedded)
