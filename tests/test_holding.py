"""Holding: before each file a worker knows that its lease is its own, and puts the page down when it is not."""

from collections import Counter

import pytest
from databases import LIFE, fill_batch
from test_worker import FakeLink, make_worker

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError
from inbox.database import leasing, work
from inbox.database.leasing import TRUST_SHARE
from inbox.database.operations import get_batch_files
from inbox.domain import Outcome
from inbox.events import FilesReleased, LeaseLost, OutcomeLost
from inbox.lifecycle import FileState
from inbox.pipeline.dispatching import recording
from inbox.pipeline.dispatching.holding import Hold
from inbox.pipeline.dispatching.link import DRAIN, PROGRESS, TROUBLE

TRUST = LIFE.total_seconds() * TRUST_SHARE


@pytest.fixture
def confirmations(monkeypatch):
    """Every question about a lease, and what the test wants to happen first: `confirmations.append(function)`."""
    asked, real = [], leasing.confirm_lease

    class Confirmations(list):
        @property
        def asked(self):
            return len(asked)

    before = Confirmations()

    def confirm(*arguments, **options):
        asked.append(1)
        if before:
            before.pop(0)()
        return real(*arguments, **options)

    monkeypatch.setattr(leasing, "confirm_lease", confirm)
    return before


def take_everything_over(house):
    """Be another service: take over whatever is held, do all of it, and leave nothing."""
    with house.sessions.reading() as session:
        leases = leasing.find_leases(session=session)
    for lease in leases:
        house.rescuer.settle(lease, in_hand=[], error=RuntimeError(), owner_is_dead=False)
    with house.sessions.writing() as session:
        page = work.claim_files("other", limit=1000, now=house.clock.now(), life=LIFE, session=session)
        outcomes = [Outcome(file.doc_id, page.token, FileState.SUCCESS, house.clock.now(), 1) for file in page.files]
        work.record_outcomes(outcomes, session=session)
        leasing.drop_leases([page.token], session=session)
    return {file.doc_id for file in page.files}


def warmed_up(house, tmp_path, handler, link=None):
    """Return a worker that takes big pages."""
    worker = make_worker(house, tmp_path, handler, link or FakeLink())
    worker._page_size = 50
    return worker


def test_quick_page_asks_nothing(house, tmp_path, confirmations):
    """
    While a page takes less than the trusted time, no file costs a question.
    """
    fill_batch("b1", 40, now=house.clock.now())
    warmed_up(house, tmp_path, lambda _: house.clock.go_on(TRUST / 50)).run()

    assert 0 == confirmations.asked
    assert {"success"} == {file.status for file in get_batch_files("b1")}


def test_slow_page_asks_once_in_the_trusted_time(house, tmp_path, confirmations):
    """
    A page that takes longer asks as often as the trusted time has passed, and goes on.
    """
    fill_batch("b1", 20, now=house.clock.now())
    warmed_up(house, tmp_path, lambda _: house.clock.go_on(TRUST / 4)).run()

    assert 4 == confirmations.asked
    assert {"success"} == {file.status for file in get_batch_files("b1")}


@pytest.mark.parametrize("at", [1, 5, 9])
def test_paused_worker_calls_no_handler_for_what_is_done(house, tmp_path, at):
    """
    A worker that wakes past its lease in the middle of a page touches no further file of it, and says so once.
    """
    fill_batch("b1", 10, now=house.clock.now())
    calls, done_elsewhere = [], set()

    def handler(file):
        calls.append(file.doc_id)
        if len(calls) == at:
            house.clock.go_on(3600)
            done_elsewhere.update(take_everything_over(house))

    warmed_up(house, tmp_path, handler).run()

    assert at == len(calls)
    assert 10 == len(done_elsewhere | set(calls))
    assert [(0, 10 - at)] == [(event.worker, event.files) for event in house.heard(LeaseLost)]
    assert [] == house.heard(FilesReleased)
    assert {"success"} == {file.status for file in get_batch_files("b1")}


def test_outcomes_of_a_lost_page_do_not_count(house, tmp_path, monkeypatch):
    """
    What a worker had found out and not recorded when it was paused is lost, and told so, file by file.
    """
    fill_batch("b1", 4, now=house.clock.now())
    monkeypatch.setattr(recording, "GROUP_SECONDS", 3600)  # no outcome is recorded before the page is put down
    calls = []

    def handler(file):
        calls.append(file.doc_id)
        if len(calls) == 2:
            house.clock.go_on(3600)
            take_everything_over(house)
        return {"by": "the paused one"}

    warmed_up(house, tmp_path, handler).run()

    assert calls == [event.doc_id for event in house.heard(OutcomeLost)]
    assert {None} == {file.raw_extraction for file in get_batch_files("b1")}


def test_worker_goes_on_when_nobody_took_over(house, tmp_path, confirmations):
    """
    A worker that was paused and finds its lease untouched, since nobody else was there, finishes its page.
    """
    fill_batch("b1", 6, now=house.clock.now())
    calls = Counter()

    def handler(file):
        calls[file.doc_id] += 1
        if len(calls) == 3:
            house.clock.go_on(86_400)

    warmed_up(house, tmp_path, handler).run()

    assert (6, {1}, 1) == (len(calls), set(calls.values()), confirmations.asked)
    assert [] == house.heard(LeaseLost)


def test_lost_page_is_claimed_anew(house, tmp_path):
    """
    After a lost page the worker claims again: what the other one gave back is done, each file once.
    """
    fill_batch("b1", 10, now=house.clock.now())
    calls = Counter()

    def handler(file):
        calls[file.doc_id] += 1
        if calls.total() == 4:
            house.clock.go_on(3600)
            with house.sessions.reading() as session:
                (lease,) = leasing.find_leases(session=session)
            house.rescuer.settle(lease, in_hand=[], error=RuntimeError(), owner_is_dead=False)

    worker = warmed_up(house, tmp_path, handler)
    worker.run()

    assert {"success"} == {file.status for file in get_batch_files("b1")}
    assert 10 == len(calls)
    assert [6] == [event.files for event in house.heard(LeaseLost)]


@pytest.mark.parametrize("error", [DatabaseUnavailableError("gone"), DatabaseRefusedError("the file is gone")])
def test_question_waits_for_the_database(house, tmp_path, confirmations, error):
    """
    While nobody can tell whose the lease is, no handler is called; when the database is back, the page goes on.
    """
    fill_batch("b1", 4, now=house.clock.now())
    seen, link = [], FakeLink()

    def gone():
        seen.append((TROUBLE, len(calls)))
        raise error

    confirmations.extend([gone, gone])
    calls = []

    def handler(file):
        calls.append(file.doc_id)
        if len(calls) == 2:
            house.clock.go_on(TRUST)

    warmed_up(house, tmp_path, handler, link).run()

    assert [(TROUBLE, 2), (TROUBLE, 2)] == seen
    assert 4 == len(calls)
    assert [TROUBLE, TROUBLE, PROGRESS] == [word for word in link.said if word in {TROUBLE, PROGRESS}][:3]


def test_waiting_question_drains(house, tmp_path, confirmations):
    """
    Told to drain while it cannot know whose the lease is, a worker gives the page back as far as it is its own.
    """
    fill_batch("b1", 4, now=house.clock.now())
    link = FakeLink()
    link.drains_at = TROUBLE

    def gone():
        raise DatabaseUnavailableError("gone")

    confirmations.extend([gone] * 100)
    warmed_up(house, tmp_path, lambda _: house.clock.go_on(TRUST), link).run()

    assert 1 == confirmations.asked
    assert ["pending"] * 3 + ["success"] == sorted(file.status for file in get_batch_files("b1"))
    assert DRAIN not in link.said


def test_answer_that_came_late_is_asked_for_again(house):
    """
    A confirmation is worth what is left of the trusted time since it was asked for.
    """
    with house.sessions.writing() as session:
        token = leasing.open_lease("me", now=house.clock.now(), life=LIFE, session=session)
    hold = Hold(token, LIFE, house.sessions, house.clock, confirmed_at=house.clock.boottime())
    house.clock.go_on(TRUST)
    before = hold.is_trusted()
    held = hold.confirm()
    after = hold.is_trusted()
    house.clock.go_on(TRUST - 0.001)

    assert (False, True, True, True) == (before, held, after, hold.is_trusted())
    house.clock.go_on(0.001)
    assert not hold.is_trusted()


def test_suspended_time_counts(house):
    """
    A machine that slept is no reason to believe in a lease: time goes on for the others.
    """
    slept = replace_boottime(house.clock)
    hold = Hold("t", LIFE, house.sessions, house.clock, confirmed_at=house.clock.boottime())
    slept.append(3600)

    assert not hold.is_trusted()
    assert not hold.confirm()


def replace_boottime(clock):
    slept = []
    clock.boottime = lambda: clock.ticks + sum(slept)
    return slept


def test_claim_is_trusted_from_before_it_was_made(house, tmp_path, monkeypatch, confirmations):
    """
    A worker that was paused while its claim was answered asks before it begins the first file.
    """
    fill_batch("b1", 1, now=house.clock.now())
    real = work.claim_files

    def slow(*arguments, **options):
        page = real(*arguments, **options)
        house.clock.go_on(TRUST)
        return page

    monkeypatch.setattr(work, "claim_files", slow)
    warmed_up(house, tmp_path, lambda _: None).run()

    assert 1 == confirmations.asked
