"""Claiming: one holder per drop, one per batch."""

import hashlib
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from databases import a_drop

from inbox.core.errors import RetryableError, StorageError
from inbox.database import leasing
from inbox.database.batches import find_leases_on_batches, finish_extraction, mark_batch_reported, release_batch
from inbox.database.operations import get_batch_by_id
from inbox.lifecycle import BatchState
from inbox.pipeline.claiming import Claimed, Claimer, Recognised, Underway, identify, locked

SPAWN = multiprocessing.get_context("spawn")


def claim(house, batch_id="b1", name="drop.zip", inode=1, owner=None):
    claimer = Claimer(house.sessions, house.clock, owner=owner or house.owner, life=house.claimer._life)
    return claimer.claim(batch_id, a_drop(name, inode=inode), drop_name=name, zip_path=f"uploads/{name}")


def test_lock_has_one_holder(tmp_path):
    """
    While one holds the lock of a name nobody else gets it, and another name is free.
    """
    with locked(tmp_path, "a.zip") as first, locked(tmp_path, "a.zip") as second, locked(tmp_path, "b.zip") as other:
        assert (True, False, True) == (first, second, other)
    with locked(tmp_path, "a.zip") as again:
        assert again
    assert [] == os.listdir(tmp_path)


def test_lock_whose_file_cannot_be_removed(tmp_path):
    """
    Where the volume does not let the file of a lock be removed, the lock ends all the same, and what it was for too.
    """
    with locked(tmp_path, "a.zip") as is_ours:
        (file,) = tmp_path.iterdir()
        file.unlink()
        file.mkdir()
    file.rmdir()
    with locked(tmp_path, "a.zip") as again:
        pass

    assert (True, True) == (is_ours, again)


def lock_in_process(folder, entered, leave, answers):
    with locked(folder, "a.zip") as is_ours:
        answers.put(is_ours)
        entered.set()
        leave.wait(30)


def test_lock_holds_across_processes(tmp_path):
    """
    Another process cannot take a lock that is held, and a killed holder's lock is free.
    """
    entered, leave, answers = SPAWN.Event(), SPAWN.Event(), SPAWN.Queue()
    process = SPAWN.Process(target=lock_in_process, args=(tmp_path, entered, leave, answers))
    process.start()
    assert entered.wait(30)

    with locked(tmp_path, "a.zip") as while_held:
        assert (True, False) == (answers.get(timeout=30), while_held)
    process.kill()
    process.join(30)
    with locked(tmp_path, "a.zip") as after_death:
        assert after_death


def test_lock_that_cannot_be_taken_is_trouble(tmp_path):
    """
    A folder of locks that is gone is trouble with the volume.
    """
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError), locked(tmp_path / "file" / "locks", "a.zip"):
        pass


def test_identity_is_the_content(tmp_path):
    """
    The batch's id is the SHA-256 of the archive's bytes, and computing it can be stopped.
    """
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    fd = os.open(tmp_path / "a", os.O_RDONLY)

    assert hashlib.sha256(b"x" * 3_000_000).hexdigest() == identify(fd, should_stop=lambda: False)
    with pytest.raises(RetryableError) as stopped:
        identify(fd, should_stop=lambda: True)
    assert "STOPPED" == stopped.value.reason_code
    os.close(fd)


def test_first_claim_gets_the_lease(house):
    """
    The first drop of a content is claimed with attempt 1; the same drop again is under way.
    """
    first, second = claim(house), claim(house)

    assert isinstance(first, Claimed)
    assert (1, "drop.zip") == (first.lease.attempt, first.lease.drop_name)
    assert isinstance(second, Underway)


def test_other_drop_of_the_content_is_recognised(house):
    """
    Another drop with content that is being worked on is recognised, under whatever name.
    """
    claim(house)

    assert isinstance(claim(house, name="copy.zip", inode=2), Recognised)


def test_waiting_batch_is_adopted(house):
    """
    A batch whose own drop has gone is taken with another drop of the same content.
    """
    lease = claim(house).lease
    with house.sessions.writing() as session:
        release_batch(lease, due_at=house.clock.now(), counted=False, now=house.clock.now(), session=session)
    adopted = claim(house, name="copy.zip", inode=2)

    assert isinstance(adopted, Claimed)
    assert "uploads/copy.zip" == get_batch_by_id("b1").zip_path


def test_one_of_many_claimers_wins(house):
    """
    Of several services that claim one drop at once, one gets it.
    """
    with ThreadPoolExecutor(5) as pool:
        claims = list(pool.map(lambda n: claim(house, owner=f"{n}"), range(10)))

    assert 1 == sum(isinstance(one, Claimed) for one in claims)
    assert all(isinstance(one, Claimed | Underway) for one in claims)


def test_drop_that_cannot_be_read_is_trouble(tmp_path):
    """
    An error of the volume while the content is read is trouble that waits.
    """
    fd = os.open(tmp_path, os.O_RDONLY)

    with pytest.raises(StorageError):
        identify(fd, should_stop=lambda: False)
    os.close(fd)


def test_own_claim_is_given_back_uncounted(house):
    """
    A claim that could not be ended is given back as if it had not been made, and only by its own holder.
    """
    claim(house)
    other = Claimer(house.sessions, house.clock, owner="other", life=house.claimer._life)

    assert not other.give_back("b1")
    assert house.claimer.give_back("b1")
    assert not house.claimer.give_back("b1")
    assert ("received", 0) == (get_batch_by_id("b1").status, get_batch_by_id("b1").attempt_count)
    with house.sessions.reading() as session:
        assert set() == leasing.open_tokens(session=session)


def test_what_else_the_owner_has_stays_in_hand(house):
    """
    To give back one batch takes nothing of the owner's other work away.
    """
    for batch_id, inode in (("b1", 1), ("b2", 2)):
        claim(house, batch_id, name=f"{batch_id}.zip", inode=inode)
    house.claimer.give_back("b1")
    with house.sessions.reading() as session:
        left = [lease.batch_id for lease in find_leases_on_batches(house.owner, session=session)]

    assert ["b2"] == left


def test_finished_batch_is_recognised_once_it_is_reported(house):
    """
    The very drop of a finished batch is under way until the batch is reported, and recognised afterwards.
    """
    now = house.clock.now()
    lease = claim(house).lease
    with house.sessions.writing() as session:
        finish_extraction(lease, BatchState.QUARANTINED, now=now, session=session, completed_at=now)
    before = claim(house)
    with house.sessions.writing() as session:
        mark_batch_reported("b1", run_id=before.batch.run_id, zip_path="", now=now, session=session)

    assert isinstance(before, Underway)
    assert isinstance(claim(house), Recognised)
