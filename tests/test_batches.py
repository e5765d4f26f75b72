"""Batches on their way: received once, leased, registered or refused, retried by an operator."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from databases import LIFE, NOW, a_drop, fill_batch, lease_it, make_batch

from inbox.database import batches, runs
from inbox.database.connection import get_session
from inbox.database.leasing import open_tokens
from inbox.database.operations import (
    get_batch_by_id,
    get_batch_files,
    mark_batch_completed,
    mark_file_failed,
    mark_file_processing_start,
    mark_file_success,
)
from inbox.lifecycle import BatchState

LATER = NOW + timedelta(minutes=5)


def receive(batch_id, name="drop.zip", inode=1):
    with get_session() as session:
        return batches.receive_batch(
            batch_id, a_drop(name, inode=inode), f"uploads/{name}", run_id="r", now=NOW, session=session
        )


def status(batch_id="b1"):
    return get_batch_by_id(batch_id).status


def test_content_is_received_once(database):
    """
    The first drop of a content makes the batch; another one finds it as it is.
    """
    first, created = receive("b1", "one.zip", 1)
    second, again = receive("b1", "two.zip", 2)

    assert (True, False) == (created, again)
    assert ("one.zip", "one.zip") == (first.drop_name, second.drop_name)
    assert second.is_of(a_drop("one.zip", inode=1))
    assert not second.is_of(a_drop("two.zip", inode=2))


def test_one_of_many_receivers_makes_it(database):
    """
    Of many that receive one content at once, one makes the batch.
    """
    with ThreadPoolExecutor(5) as pool:
        made = list(pool.map(lambda n: receive("b1", f"{n}.zip", n)[1], range(10)))

    assert 1 == sum(made)


def test_waiting_batch_takes_another_drop(database):
    """
    A batch nobody extracts yet can be pointed at another drop of its content; later it cannot.
    """
    make_batch("b1")

    def adopt(name):
        with get_session() as session:
            return batches.adopt_drop("b1", a_drop(name), f"uploads/{name}", now=NOW, session=session)

    assert adopt("other.zip")
    assert "other.zip" == get_batch_by_id("b1").drop_name
    lease_it("b1")
    assert not adopt("third.zip")


def test_extraction_is_leased_once(database):
    """
    A batch is leased by one worker, its attempt counted, and not before it is due.
    """
    make_batch("b1")
    early = lease_it("b1", now=NOW - timedelta(seconds=1))
    first, second = lease_it("b1"), lease_it("b1", owner="other")

    assert (None, 1, None) == (early, first.attempt, second)
    assert "extracting" == status()


def test_loser_of_a_lease_changes_nothing(database):
    """
    Whoever's lease was taken over can neither finish nor release the batch.
    """
    make_batch("b1")
    lost = lease_it("b1")
    with get_session() as session:
        batches.rescue_batch(lost.token, max_attempts=3, now=NOW, session=session)
    held = lease_it("b1", owner="other")
    with get_session() as session:
        finished = batches.finish_extraction(lost, BatchState.QUARANTINED, now=NOW, session=session)
        released = batches.release_batch(lost, due_at=NOW, counted=True, now=NOW, session=session)
        begun = runs.begin_processing(lost, run_id="r", members=1, directories=0, now=NOW, session=session)

    assert (False, False, False) == (finished, released, begun)
    assert ("extracting", held.token, 2) == (status(), get_batch_by_id("b1").lease_token, held.attempt)


def test_release_may_count_or_not(database):
    """
    A batch given back is due again when said; only a counted attempt happened.
    """
    make_batch("b1")
    for counted, expected in ((False, 0), (True, 1)):
        lease = lease_it("b1", now=LATER)
        with get_session() as session:
            batches.release_batch(lease, due_at=LATER, counted=counted, now=NOW, session=session, reason="disk full")
        assert ("received", expected, LATER) == (
            status(),
            get_batch_by_id("b1").attempt_count,
            get_batch_by_id("b1").due_at,
        )
    with database.reading() as session:
        assert set() == open_tokens(session=session)


def test_rescue_ends_with_the_last_attempt(database):
    """
    An extraction whose holder is gone is due again, and failed when its attempts are used up.
    """
    make_batch("b1")
    seen = []
    for _ in range(3):
        lease = lease_it("b1")
        with get_session() as session:
            batches.rescue_batch(lease.token, max_attempts=3, now=NOW, session=session)
        seen.append(status())
    with get_session() as session:
        nothing = batches.rescue_batch("unknown", max_attempts=3, now=NOW, session=session)

    assert ["received", "received", "failed"] == seen
    assert "EXTRACTION_DIED" == get_batch_by_id("b1").reason_code
    assert not nothing


def test_only_an_empty_batch_is_forgotten(database):
    """
    A batch without members can be forgotten by its holder, or by anyone while nobody holds it.
    """
    make_batch("b1")
    make_batch("b2")
    fill_batch("b3", 1)
    lease = lease_it("b1")

    def forget(batch_id, token):
        with get_session() as session:
            return batches.forget_batch(batch_id, token=token, session=session)

    assert not forget("b1", None)
    assert forget("b1", lease.token)
    assert forget("b2", None)
    assert not forget("b3", None)
    assert get_batch_by_id("b1") is None


def test_open_batches_are_those_not_reported(database):
    """
    A batch stays open until it is reported, whatever its state.
    """
    make_batch("b1")
    make_batch("b2", name="other.zip")
    lease = lease_it("b1")
    with get_session() as session:
        batches.finish_extraction(lease, BatchState.QUARANTINED, now=NOW, session=session)
        before = batches.find_open_batches(list(BatchState), session=session)
        batches.mark_batch_reported("b1", "run-b1", zip_path="processed/drop.zip", now=LATER, session=session)
        after = batches.find_open_batches(list(BatchState), session=session)
        named = batches.find_batches_of_drops(["drop.zip"], session=session)
        by_id = batches.find_batches(["b1", "missing"], session=session)

    assert ({"b1", "b2"}, {"b2"}) == ({one.batch_id for one in before}, {one.batch_id for one in after})
    assert (["b1"], {"b1"}) == ([one.batch_id for one in named], set(by_id))
    assert "processed/drop.zip" == by_id["b1"].zip_path


def finish(doc_ids, failing):
    for number, doc_id in enumerate(doc_ids):
        mark_file_processing_start(doc_id)
        mark_file_failed(doc_id, "no") if number in failing else mark_file_success(doc_id)
    return mark_batch_completed("b1", now=NOW)


def test_retry_opens_a_run_over_what_failed(database):
    """
    An operator's retry makes failed files pending in a new run, with their attempts anew, and leaves the others alone.
    """
    doc_ids = fill_batch("b1", 3)
    finish(doc_ids, failing={0, 2})
    with get_session() as session:
        none = runs.open_run("b1", "other", now=LATER, session=session, doc_ids=[doc_ids[1]])
        opened = runs.open_run("b1", "second", now=LATER, session=session, doc_ids=[doc_ids[2]])
    files, batch = get_batch_files("b1"), get_batch_by_id("b1")

    assert (0, 1) == (none, opened)
    assert ["failed", "success", "pending"] == [file.status for file in files]
    assert ("second", 0, None) == (files[2].run_id, files[2].retry_count, files[2].error_type)
    assert ("processing", "second", None, LATER) == (batch.status, batch.run_id, batch.completed_at, batch.started_at)


def test_nothing_to_retry(database):
    """
    A batch without failures, one under way and one unknown open no run.
    """
    doc_ids = fill_batch("b1", 1)

    def opened(batch_id):
        with get_session() as session:
            return runs.open_run(batch_id, "second", now=LATER, session=session)

    assert 0 == opened("b1")
    finish(doc_ids, failing=set())
    assert (0, 0) == (opened("b1"), opened("missing"))


def test_refused_archive_is_offered_again(database):
    """
    A batch that never got members waits for its archive again; one with members does not.
    """
    make_batch("b1")
    lease = lease_it("b1")
    with get_session() as session:
        batches.finish_extraction(lease, BatchState.QUARANTINED, now=NOW, session=session, reason_code="ENCRYPTED")
        offered = runs.offer_again("b1", "uploads/drop.zip", now=LATER, session=session)
        again = runs.offer_again("b1", "uploads/drop.zip", now=LATER, session=session)

    assert (True, False) == (offered, again)
    assert ("received", 0, None) == (status(), get_batch_by_id("b1").attempt_count, get_batch_by_id("b1").reason_code)


def test_finished_and_overdue_batches_are_found(database):
    """
    A batch is finished when its last file has come to rest, and overdue when its run has lasted too long.
    """
    (doc_id,) = fill_batch("b1", 1)
    fill_batch("empty", 0)
    with database.reading() as session:
        before = runs.find_finished_batches(session=session)
        overdue = runs.find_overdue_batches(started_before=NOW + LIFE, session=session)
        young = runs.find_overdue_batches(started_before=NOW, session=session)
    mark_file_processing_start(doc_id)
    mark_file_success(doc_id)
    with database.reading() as session:
        after = runs.find_finished_batches(session=session)

    assert (["empty"], {"empty", "b1"}) == (before, set(after))
    assert (True, []) == ("b1" in {one.batch_id for one in overdue}, young)
