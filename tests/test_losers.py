"""The loser of every race: two do the same at once, or one comes too late; one of them counts, and nothing is lost."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from databases import LIFE, fill_batch, lease_it, make_batch

from inbox.core.errors import LeaseLostError, RetryableError
from inbox.database import batches, leasing, runs, work
from inbox.database.operations import get_batch_by_id, get_batch_files
from inbox.domain import Extraction, Outcome
from inbox.lifecycle import BatchState, FileState

ROUNDS = 8
FILES = 6
names = (f"b{number}" for number in count())


def at_once(*functions):
    """Let all of them run at the same time; return what each returned."""
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(function) for function in functions]]


def claim(house, owner="holder"):
    with house.sessions.writing() as session:
        return work.claim_files(owner, limit=100, now=house.clock.now(), life=LIFE, session=session)


def lease_of(house, token):
    with house.sessions.reading() as session:
        return next(lease for lease in leasing.find_leases(session=session) if lease.token == token)


def record(house, page, state=FileState.SUCCESS):
    outcomes = [Outcome(file.doc_id, page.token, state, house.clock.now(), 1) for file in page.files]
    with house.sessions.writing() as session:
        return work.record_outcomes(outcomes, session=session)


def settle(house, lease, in_hand=()):
    return house.rescuer.settle(lease, in_hand=in_hand, error=RetryableError("gone"), owner_is_dead=False)


def states(batch_id):
    return Counter(str(file.status) for file in get_batch_files(batch_id))


def test_finishing_and_taking_over(house):
    """
    Of a holder that records its page and a rescuer that takes it over, each file has one fate, and one of the two.
    """
    for batch_id in (next(names) for _ in range(ROUNDS)):
        fill_batch(batch_id, FILES, now=house.clock.now())
        page = claim(house)
        lease = lease_of(house, page.token)
        counted, rescue = at_once(lambda: record(house, page), lambda: settle(house, lease))  # noqa: B023 - at once
        assert FILES == len(counted) + rescue.released
        assert len(counted) == states(batch_id)["success"]
        record(house, claim(house))
        assert {"success": FILES} == states(batch_id)


def test_claiming_and_taking_over(house):
    """
    Files that are taken over while others claim are claimed once each, then or later.
    """
    for batch_id in (next(names) for _ in range(ROUNDS)):
        fill_batch(batch_id, FILES, now=house.clock.now())
        lost = claim(house)
        lease = lease_of(house, lost.token)
        rescue, *pages = at_once(
            lambda: settle(house, lease),  # noqa: B023 - at once
            lambda: claim(house, "a"),
            lambda: claim(house, "b"),
        )
        pages.append(claim(house, "c"))
        claimed = Counter(file.doc_id for page in pages for file in page.files)
        assert FILES == rescue.released == len(claimed)
        assert {1} == set(claimed.values())
        assert [0, 0] == [len(record(house, lost)), states(batch_id)["success"]]
        assert FILES == sum(len(record(house, page)) for page in pages)


def test_taking_over_twice(house):
    """
    Of two rescuers that saw the same lease one decides, and the attempt is charged once.
    """
    for batch_id in (next(names) for _ in range(ROUNDS)):
        fill_batch(batch_id, FILES, now=house.clock.now())
        lease = lease_of(house, claim(house).token)
        rescues = at_once(*[lambda: settle(house, lease, None)] * 3)  # noqa: B023 - at once
        assert [FILES] == [len(rescue.charged) for rescue in rescues if rescue is not None]
        assert {"retrying": FILES} == states(batch_id)
        assert {0} == {file.retry_count for file in get_batch_files(batch_id)}


def test_releasing_and_taking_over(house):
    """
    A holder that gives its page back while it is taken over uncounts no attempt that was charged.
    """
    for batch_id in (next(names) for _ in range(ROUNDS)):
        fill_batch(batch_id, FILES, now=house.clock.now())
        page = claim(house)
        lease = lease_of(house, page.token)

        def release(token=page.token):
            with house.sessions.writing() as session:
                return work.release_files(token, session=session)

        released, rescue = at_once(release, lambda: settle(house, lease, None))  # noqa: B023 - at once
        assert FILES == released + len(rescue.charged)
        assert (released, len(rescue.charged)) == (states(batch_id)["pending"], states(batch_id)["retrying"])
        house.clock.go_on(60)
        record(house, claim(house))


def test_registering_and_taking_over(house):
    """
    Of a holder that registers its members and a rescuer, one wins: the rows are all there, or none is.
    """
    for batch_id in (next(names) for _ in range(ROUNDS)):
        make_batch(batch_id, now=house.clock.now())
        lease = lease_it(batch_id, owner="holder", now=house.clock.now())
        held = lease_of(house, lease.token)

        def register(lease=lease):
            try:
                return house.registrar.register(lease, Extraction((), (), 0, 0))
            except LeaseLostError:
                return None

        run_id, rescue = at_once(register, lambda: settle(house, held))  # noqa: B023 - at once
        state = get_batch_by_id(batch_id).status
        assert (run_id is not None) == (state == BatchState.PROCESSING)
        assert (run_id is None) == (state == BatchState.RECEIVED)
        assert run_id is not None or rescue is not None


def test_registering_after_the_lease_was_lost(house):
    """
    Whoever registers too late changes nothing about the attempt of the one who has the batch now.
    """
    make_batch("b", now=house.clock.now())
    lost = lease_it("b", owner="holder", now=house.clock.now())
    settle(house, lease_of(house, lost.token))
    lease = lease_it("b", owner="winner", now=house.clock.now())

    with pytest.raises(LeaseLostError):
        house.registrar.register(lost, Extraction((), (), 0, 0))

    assert ("extracting", lease.token) == (get_batch_by_id("b").status, get_batch_by_id("b").lease_token)
    assert house.registrar.register(lease, Extraction((), (), 0, 0))


@pytest.mark.parametrize("counted", [True, False])
def test_giving_a_batch_back_after_the_lease_was_lost(house, counted):
    """
    Whoever gives a batch back too late does not uncount, end or postpone the attempt of the one who has it now.
    """
    make_batch("b", now=house.clock.now())
    lost = lease_it("b", owner="holder", now=house.clock.now())
    settle(house, lease_of(house, lost.token))
    lease = lease_it("b", owner="winner", now=house.clock.now())
    now = house.clock.now()
    with house.sessions.writing() as session:
        given_back = batches.release_batch(lost, due_at=now + LIFE, counted=counted, now=now, session=session)
        ended = batches.finish_extraction(lost, BatchState.QUARANTINED, now=now, session=session)
        forgotten = batches.forget_batch("b", token=lost.token, session=session)

    job = get_batch_by_id("b")
    assert (False, False, False) == (given_back, ended, forgotten)
    assert ("extracting", lease.token, 2) == (job.status, job.lease_token, job.attempt_count)
    assert lease.token == lease_of(house, lease.token).token


def test_recording_after_the_file_was_done_by_another(house):
    """
    An outcome that comes after the file has succeeded elsewhere changes nothing, whatever it says.
    """
    fill_batch("b", FILES, now=house.clock.now())
    lost = claim(house)
    settle(house, lease_of(house, lost.token))
    record(house, claim(house, "winner"))

    assert set() == record(house, lost, FileState.FAILED)
    assert set() == record(house, lost, FileState.RETRYING)
    assert {"success": FILES} == states("b")


def test_closing_at_once(house):
    """
    Of many that close one batch at once one does, and one summary is there.
    """
    for batch_id in (next(names) for _ in range(ROUNDS)):
        fill_batch(batch_id, 1, now=house.clock.now())
        record(house, claim(house))
        closed = at_once(*[lambda: house.closing.summariser.close(batch_id)] * 3)  # noqa: B023 - at once
        assert 1 == len([one for one in closed if one is not None])
        assert "completed" == get_batch_by_id(batch_id).status


def finished(house):
    """Return a batch, from its drop on, that is closed and not reported."""
    house.drop()
    house.take()
    house.work()
    (batch_id,) = house.closing.summariser.find_finished()
    house.closing.summariser.close(batch_id)
    (batch,) = house.reporter.find_unreported()
    return batch


def test_reporting_at_once(house):
    """
    Several that report one batch at once, where no lock keeps them apart, leave one archive and one whole receipt.
    """
    batch = finished(house)
    reports = at_once(*[lambda: house.reporter.report(batch)] * 3)

    assert {"processed/drop.zip"} == {report.archive for report in reports}
    assert ["drop.zip"] == [path.name for path in house.volume.processed.iterdir()]
    assert 1 == len(list(house.volume.receipts.iterdir()))
    assert "processed/drop.zip" == get_batch_by_id(batch.batch_id).zip_path
    assert [] == house.reporter.find_unreported()


def test_report_that_comes_after_a_retry_ends_nothing(house):
    """
    A reporter that was held up until an operator had opened a new run does not mark that one as reported.
    """
    house.drop()
    house.take()
    house.work(failing=["a.txt"])
    house.closing.summariser.close(*house.closing.summariser.find_finished())
    (batch,) = house.reporter.find_unreported()
    with house.sessions.writing() as session:
        runs.open_run(batch.batch_id, "run-2", now=house.clock.now(), session=session)
    house.reporter.report(batch)
    house.work()
    house.closing.round()

    assert "completed" == get_batch_by_id(batch.batch_id).status
    assert get_batch_by_id(batch.batch_id).reported_at is not None
    (receipt,) = house.volume.receipts.iterdir()
    assert '"state": "completed"' in receipt.read_text()


def test_receipt_of_an_earlier_run_does_not_stay(house):
    """
    A reporter that was held up before its receipt, until a later run had been reported, leaves that one's receipt.
    """
    house.drop()
    house.take()
    house.work(failing=["a.txt"])
    house.closing.summariser.close(*house.closing.summariser.find_finished())
    (late,) = house.reporter.find_unreported()
    with house.sessions.writing() as session:
        runs.open_run(late.batch_id, "run-2", now=house.clock.now(), session=session)
    house.work()
    house.closing.round()
    house.reporter.report(late)

    (receipt,) = house.volume.receipts.iterdir()
    assert '"state": "completed"' in receipt.read_text()
