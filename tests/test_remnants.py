"""What attempts published that died before they had rows goes with their batch, and nobody else's folder with it."""

import hashlib
import os

import pytest
from databases import lease_it, make_batch

from inbox.core.errors import StorageError
from inbox.database import batches
from inbox.database.operations import get_batch_by_id
from inbox.events import BatchForgotten
from inbox.pipeline.runner import unpacking
from inbox.utils import remnants
from inbox.utils.remnants import unpublish


def publish(house, batch_id, content="left"):
    folder = house.volume.published(batch_id)
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(content)


def on_the_disk(house):
    return sorted(os.listdir(house.volume.extracted)), os.listdir(house.volume.staging)


def test_vanished_drop_leaves_nothing_unpacked(house):
    """
    When a drop is taken away after an attempt that died with its folder in place, batch and folder are forgotten.
    """
    make_batch("b1", now=house.clock.now(), name="gone.zip")
    publish(house, "b1")
    with house.instance:
        house.rescuing.round()

    assert ["b1"] == [event.batch_id for event in house.heard(BatchForgotten)]
    assert get_batch_by_id("b1") is None
    assert ([".staging"], []) == on_the_disk(house)


def test_batch_that_is_refused_leaves_nothing_unpacked(house):
    """
    A batch whose every extraction died has nothing in extracted/ when it is reported.
    """
    make_batch("b1", now=house.clock.now(), name="bad.zip")
    publish(house, "b1")
    for _ in range(3):
        lease = lease_it("b1", owner="other", now=house.clock.now())
        with house.sessions.writing() as session:
            batches.rescue_batch(lease.token, max_attempts=3, now=house.clock.now(), session=session)
    house.closing.round()

    assert get_batch_by_id("b1").reported_at is not None
    assert ([".staging"], []) == on_the_disk(house)


def test_drop_that_changes_leaves_nothing_unpacked(house, monkeypatch):
    """
    A batch that is forgotten since its drop turned out not to be whole takes an earlier attempt's folder along.
    """
    path = house.drop()
    batch_id = hashlib.sha256(path.read_bytes()).hexdigest()
    publish(house, batch_id)

    def change(*_arguments, **_options):
        raise unpacking.NotSettledError("it changed")

    monkeypatch.setattr(unpacking, "extract", change)
    house.take()

    assert get_batch_by_id(batch_id) is None
    assert ([".staging"], []) == on_the_disk(house)


@pytest.mark.parametrize("is_idle", [True, False])
def test_folder_of_somebody_else_stays(house, is_idle):
    """
    What is published while a remnant is looked at stays, with everything in it, and so does what somebody works on.
    """
    publish(house, "b1")

    def look():
        if is_idle:
            house.volume.published("b1").rename(house.volume.extracted / "older")
            publish(house, "b1", "new")
        return is_idle

    assert not unpublish(house.volume, "b1", "token", is_idle=look)
    assert ("new" if is_idle else "left") == (house.volume.published("b1") / "a.txt").read_text()
    assert [] == os.listdir(house.volume.staging)


def test_retried_batch_keeps_what_it_unpacks(house):
    """
    A report that comes late, when the batch is on its way again, takes nothing away.
    """
    make_batch("b1", now=house.clock.now(), name="bad.zip")
    lease = lease_it("b1", now=house.clock.now())
    with house.sessions.writing() as session:
        batches.finish_extraction(lease, "quarantined", now=house.clock.now(), session=session)
    with house.sessions.reading() as session:
        record = batches.find_batches(["b1"], session=session)["b1"]
    publish(house, "b1")
    with house.sessions.writing() as session:
        job = session.get_one(type(get_batch_by_id("b1")), get_batch_by_id("b1").id)
        job.status, job.run_id = "received", "next"
    house.reporter.report(record)

    assert (["b1"], "received") == (sorted(os.listdir(house.volume.extracted))[1:], get_batch_by_id("b1").status)


def test_volume_that_refuses_is_waited_for(house, monkeypatch):
    """
    A remnant that cannot be removed is the volume's trouble, and the batch stays until it can be.
    """
    make_batch("b1", now=house.clock.now(), name="gone.zip")
    publish(house, "b1")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(remnants, "replace_if_it_is", refuse)
    with house.instance, pytest.raises(StorageError, match="Read-only"):
        house.rescuing.round()

    assert get_batch_by_id("b1") is not None
    assert [] == os.listdir(house.volume.staging)
