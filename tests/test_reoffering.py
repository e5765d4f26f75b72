"""Failed files whose handler has a new version: tried again once, as by an operator, and by one service of several."""

import threading
from collections import Counter
from dataclasses import replace

import pytest
from databases import LIFE

from inbox.core.errors import RetryableError
from inbox.database import runs, work
from inbox.database.leasing import leases_of
from inbox.database.operations import get_batch_by_id, get_batch_files
from inbox.domain import InHand, Outcome
from inbox.events import FilesReoffered
from inbox.handlers.base import HandlerSpec
from inbox.handlers.registry import Registry
from inbox.lifecycle import FileState
from inbox.pipeline.reoffering import Reoffering
from inbox.pipeline.rescuing import Rescuer, RetryPolicy


def registry(**versions):
    """Handlers by name, each of files whose names begin with it, in these versions."""
    return Registry(
        tuple(HandlerSpec(name, lambda _: None, (f"{name}*",), version) for name, version in versions.items())
    )


def handler_of(handlers):
    def chosen(claimed):
        name = claimed.member_path
        spec = next((spec for spec in handlers.specs if name.startswith(spec.name)), None)
        return (spec.name, spec.version) if spec else (None, None)

    return chosen


def reoffer(house, **versions):
    handlers = registry(**versions)
    Reoffering(
        house.sessions,
        house.clock,
        house.events.append,
        versions=handlers.versions(),
        handler_of=handler_of(handlers),
    ).reoffer()


def work_off(house, failing=(), handler="a", version="1"):
    """Bring every due file to rest, as this version of this handler would."""
    with house.sessions.writing() as session:
        page = work.claim_files("worker", limit=10_000, now=house.clock.now(), life=LIFE, session=session)
    outcomes = [
        Outcome(
            file.doc_id,
            file.token,
            FileState.FAILED if file.member_path in failing else FileState.SUCCESS,
            house.clock.now(),
            7,
            error_type="PERMANENT" if file.member_path in failing else None,
            handler=handler,
            handler_version=version,
        )
        for file in page.files
    ]
    with house.sessions.writing() as session:
        work.record_outcomes(outcomes, session=session)
    house.closing.round()


def put_through(house, members=("a1", "a2", "a3"), failing=("a1", "a2"), name="drop.zip", **by):
    house.drop(name, members=members)
    house.take()
    work_off(house, failing, **by)
    return house.events[-1].batch_id


def states(batch_id):
    return {file.member_path: file.status for file in get_batch_files(batch_id)}


def test_new_version_tries_what_failed_again(house):
    """
    Under another version failed files go into a new run, those that succeeded stay, and one event tells how many.
    """
    batch_id = put_through(house)
    before = get_batch_by_id(batch_id).run_id
    reoffer(house, a="2")
    during = states(batch_id)
    work_off(house, version="2")
    batch = get_batch_by_id(batch_id)

    assert {"a1": "pending", "a2": "pending", "a3": "success"} == during
    assert [FilesReoffered(1, 2)] == house.heard(FilesReoffered)
    assert ("completed", True) == (batch.status, before != batch.run_id)
    assert {"success"} == set(states(batch_id).values())
    assert {"2": 2, "1": 1} == Counter(file.handler_version for file in get_batch_files(batch_id))


def test_receipt_is_replaced(house):
    """
    When the new run has ended, the receipt tells of it, as after an operator's retry.
    """
    batch_id = put_through(house)
    (path,) = house.volume.receipts.glob("*.json")
    before = path.read_text()
    reoffer(house, a="2")
    work_off(house, version="2")

    assert [path] == list(house.volume.receipts.glob("*.json"))
    assert ('"state": "partial"' in before, '"state": "completed"' in path.read_text()) == (True, True)
    assert get_batch_by_id(batch_id).run_id in path.read_text()


def test_each_version_tries_once(house):
    """
    What fails under the new version too stays failed, however often the service starts, until there is another.
    """
    batch_id = put_through(house)
    reoffer(house, a="2")
    work_off(house, failing={"a1", "a2"}, version="2")
    reoffer(house, a="2")
    unchanged = states(batch_id)
    reoffer(house, a="3")

    assert {"a1": "failed", "a2": "failed", "a3": "success"} == unchanged
    assert {"a1": "pending", "a2": "pending", "a3": "success"} == states(batch_id)
    assert [2, 2] == [event.files for event in house.heard(FilesReoffered)]


@pytest.mark.parametrize("versions", [{"a": "1"}, {"b": "2"}, {}, {"b": "2", "c": "1"}])
def test_without_another_version_nothing_is_tried(house, versions):
    """
    The same version, or no longer that handler, leaves failed files to the operator.
    """
    batch_id = put_through(house)
    reoffer(house, **versions)

    assert {"a1": "failed", "a2": "failed", "a3": "success"} == states(batch_id)
    assert [] == house.heard(FilesReoffered)


def test_file_that_another_handler_would_get_stays(house):
    """
    A file that its handler would no longer get is not tried again, though the handler has another version.
    """
    batch_id = put_through(house, members=("a1", "b1"), failing=("a1", "b1"))
    reoffer(house, a="2", b="2")

    assert {"a1": "pending", "b1": "failed"} == states(batch_id)


def test_batch_that_ran_out_of_its_time_stays(house):
    """
    A file that failed with its batch's time says nothing about a version, also when an attempt had failed before.
    """
    house.drop(members=("a1", "a2"))
    house.take()
    with house.sessions.writing() as session:
        page = work.claim_files("worker", limit=10, now=house.clock.now(), life=LIFE, session=session)
        file = page.files[0]
        outcome = Outcome(file.doc_id, file.token, FileState.RETRYING, house.clock.now(), 7, due_at=house.clock.now())
        work.record_outcomes([replace(outcome, handler="a", handler_version="1")], session=session)
    house.watch_batches(2100)
    house.closing.round()
    reoffer(house, a="2")
    (batch_id,) = {file.batch_id for file in page.files}

    assert {"a1": "failed", "a2": "failed"} == states(batch_id)
    assert {None} == {file.handler_version for file in get_batch_files(batch_id)}


def test_batch_under_way_is_left_alone(house):
    """
    Files that failed in a batch which is still being worked on wait for its end.
    """
    house.drop(members=("a1", "a2"))
    house.take()
    with house.sessions.writing() as session:
        page = work.claim_files("worker", limit=1, now=house.clock.now(), life=LIFE, session=session)
        file = page.files[0]
        failed = Outcome(file.doc_id, file.token, FileState.FAILED, house.clock.now(), 7, error_type="PERMANENT")
        work.record_outcomes([replace(failed, handler="a", handler_version="1")], session=session)
    reoffer(house, a="2")

    assert {"a1": "failed", "a2": "pending"} == states(file.batch_id)


def test_more_files_than_a_page(house, monkeypatch):
    """
    A batch with more failed files than fit into a page is read and opened in pages, as one run.
    """
    monkeypatch.setattr(runs, "PAGE_ROWS", 7)
    members = [f"a{number:02}" for number in range(30)]
    batch_id = put_through(house, members=members, failing=members)
    reoffer(house, a="2")

    assert {"pending"} == set(states(batch_id).values())
    assert 1 == len({file.run_id for file in get_batch_files(batch_id)})
    assert [FilesReoffered(1, 30)] == house.heard(FilesReoffered)


def test_several_services_open_one_run(house):
    """
    However many start at once with the new version, each file goes through again once.
    """
    batches = [put_through(house, members=("a1", f"a{number}"), name=f"{number}.zip") for number in range(2, 6)]
    together = threading.Barrier(4)

    def start():
        together.wait()
        reoffer(house, a="2")

    services = [threading.Thread(target=start) for _ in range(4)]
    for service in services:
        service.start()
    for service in services:
        service.join()

    assert sum(event.files for event in house.heard(FilesReoffered)) == sum(
        file.status == "pending" for batch_id in batches for file in get_batch_files(batch_id)
    )
    assert 4 == sum(event.batches for event in house.heard(FilesReoffered))


def test_service_that_comes_late_opens_none_again(house):
    """
    What another service has opened, and what failed there again, is not opened by one that had looked before.
    """
    batch_id = put_through(house)
    doc_ids = [file.doc_id for file in get_batch_files(batch_id) if file.status == "failed"]
    reoffer(house, a="2")
    work_off(house, failing={"a1", "a2"}, version="2")
    with house.sessions.writing() as session:
        late = runs.open_run(
            batch_id, "late", now=house.clock.now(), session=session, doc_ids=doc_ids, versions={"a": "2"}
        )

    assert (0, "partial") == (late, get_batch_by_id(batch_id).status)


@pytest.mark.parametrize("ours", [True, False])
def test_death_of_a_worker_is_charged_to_its_handler(house, ours):
    """
    A file that ends with a worker of this service bears handler and version; of another's nobody knows them.
    """
    house.drop(members=("a1",))
    house.take()
    rescuer = Rescuer(
        house.sessions, house.clock, RetryPolicy(1, 2.0), batch_time=LIFE, handler_of=lambda _: ("a", "1")
    )
    with house.sessions.writing() as session:
        page = work.claim_files("me/w0.1", limit=1, now=house.clock.now(), life=LIFE, session=session)
    with house.sessions.reading() as session:
        (lease,) = leases_of("me/w0.1", session=session)
    (file,) = page.files
    rescuer.settle(
        lease,
        in_hand=[InHand(page.token, file.doc_id, 0.0)],
        error=RetryableError("it died", reason_code="WORKER_DIED"),
        owner_is_dead=True,
        is_ours=ours,
    )
    (row,) = get_batch_files(file.batch_id)

    assert ("failed", *(("a", "1") if ours else (None, None))) == (row.status, row.handler, row.handler_version)
