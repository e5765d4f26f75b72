"""Turns: batches that wait at the same time advance at the same pace, whatever their sizes and whoever comes when."""

from collections import Counter, defaultdict
from datetime import timedelta
from itertools import combinations

import pytest
from databases import LIFE, NOW, connected, fill_batch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from inbox.database import turns, work
from inbox.database.connection import get_session
from inbox.database.operations import (
    get_batch_files,
    get_or_create_file_extractions,
    mark_batch_completed,
    update_file_status,
)
from inbox.database.runs import open_run
from inbox.domain import Outcome
from inbox.lifecycle import FileState

LATER = NOW + timedelta(seconds=10)


def claim(limit=100, *, now=NOW, again=None):
    with get_session() as session:
        return work.claim_files("worker", limit=limit, now=now, life=LIFE, session=session, again=again)


def record(files, state=FileState.SUCCESS, **values):
    with get_session() as session:
        outcomes = [Outcome(file.doc_id, file.token, state, NOW, 1, **values) for file in files]
        assert len(outcomes) == len(work.record_outcomes(outcomes, session=session))


def release(page):
    with get_session() as session:
        return work.release_files(page.token, session=session)


def counts(page):
    return Counter(file.batch_id for file in page.files)


def test_small_batch_is_served_at_once(database):
    """
    A small batch does not wait behind a large one that came before it: the next page holds all of it.
    """
    fill_batch("large", 500)
    record(claim(100).files)
    fill_batch("small", 5)

    assert {"large": 7, "small": 5} == counts(claim(12))


def test_batches_advance_at_the_same_pace(database):
    """
    Of two large batches each gets half of every page, also when one came much later.
    """
    fill_batch("first", 300)
    record(claim(100).files)
    fill_batch("second", 300)
    record(claim(1).files)

    assert [{"first": 30, "second": 30}] * 3 == [counts(claim(60)) for _ in range(3)]


def test_skipped_members_take_no_turns(database):
    """
    Members without a file do not push the files behind them back.
    """
    fill_batch("large", 100)
    fill_batch("small", 0)
    rows = [
        {
            "doc_id": f"small-{number}",
            "batch_id": "small",
            "position": number,
            "status": "skipped" if number < 50 else "pending",
            "processing_completed_at": NOW if number < 50 else None,
        }
        for number in range(53)
    ]
    with get_session() as session:
        get_or_create_file_extractions(rows, session=session)

    assert 3 == counts(claim(10))["small"]


def test_stream_of_small_batches_does_not_starve_the_large_one(database):
    """
    With a new small batch before every page, each as large as half of it, the large one still goes on.
    """
    fill_batch("large", 200)
    served = Counter()
    for number in range(20):
        fill_batch(f"small-{number}", 5)
        page = claim(10)
        record(page.files)
        served += counts(page)

    assert served["large"] >= 80
    assert all(5 == served[f"small-{number}"] for number in range(18))


def test_flood_of_small_batches_lets_the_large_one_have_its_turn(database):
    """
    Also when more comes than can be done, the large batch is served: new ones begin behind what is being served.
    """
    fill_batch("large", 200)
    served = Counter()
    for number in range(24):
        fill_batch(f"small-{number}", 1)
        fill_batch(f"other-{number}", 1)
        page = claim(1)
        record(page.files)
        served += counts(page)

    assert served["large"] >= 3


def test_released_files_are_among_the_next(database):
    """
    Files given back are among the next, and a batch that comes then gets no start over the others.
    """
    fill_batch("first", 300)
    held = claim(20)
    record(claim(200).files)
    release(held)
    fill_batch("second", 300)
    page = claim(22)

    assert {file.doc_id for file in held.files} <= {file.doc_id for file in page.files}
    pace = counts(claim(60))
    assert 2 >= abs(pace["first"] - pace["second"])


def test_batch_comes_behind_what_is_in_hand(database):
    """
    When nothing waits, a new batch begins behind the files in hand: given back, these do not wait for all of it.
    """
    fill_batch("first", 50)
    held = claim(50)
    fill_batch("second", 300)
    release(held)

    assert 49 <= counts(claim(50))["first"]


def test_turns_begin_anew_when_nothing_is_left(database):
    """
    Turns do not grow for ever: with every file at rest the next batch begins at 0.
    """
    fill_batch("first", 5)
    record(claim().files)
    fill_batch("second", 2)

    assert [0, 1] == [file.turn for file in get_batch_files("second")]
    assert [None] * 5 == [file.turn for file in get_batch_files("first")]


def test_operators_retry_is_served_as_a_new_batch(database):
    """
    Files that an operator wants tried again do not wait behind a large batch, however far back in theirs they lie.
    """
    doc_ids = fill_batch("first", 30)
    files = claim().files
    record(files[:25])
    record(files[25:], FileState.FAILED, error_type="PARSE_ERROR")
    mark_batch_completed("first", now=NOW)
    fill_batch("large", 300)
    with get_session() as session:
        assert 5 == open_run("first", "run-2", now=NOW, session=session)
    page = claim(11)

    assert {"first": 5, "large": 6} == counts(page)
    assert doc_ids[25:] == [file.doc_id for file in page.files if file.batch_id == "first"]


def test_files_due_again_get_half_a_page(database):
    """
    Files that are due again come first, but a page keeps half of its room for others as long as these wait.
    """
    fill_batch("first", 30)
    record(claim(20).files, FileState.RETRYING, error_type="RETRYABLE", due_at=NOW)
    page = claim(10)
    rest = [claim(10, now=LATER) for _ in range(3)]

    assert [2] * 5 + [1] * 5 == [file.attempt for file in page.files]
    assert [5, 5, 5] == [sum(file.attempt == 2 for file in one.files) for one in rest]
    assert [10, 5, 5] == [len(one.files) for one in rest]


def test_page_without_room_for_repetitions_takes_them_when_nothing_else_waits(database):
    """
    A page that is to hold files before their first attempt alone holds those due again rather than nothing.
    """
    fill_batch("first", 3)
    record(claim(2).files, FileState.RETRYING, error_type="RETRYABLE", due_at=NOW)
    pages = [claim(1, again=0) for _ in range(4)]

    assert [[1], [2], [2], []] == [[file.attempt for file in page.files] for page in pages]


def test_file_made_to_wait_by_hand_waits_for_its_time(database):
    """
    A file that is moved to retrying by name has no turn any more: its time alone says when it is claimed.
    """
    (doc_id,) = fill_batch("first", 1)
    with get_session() as session:
        session.execute(text("UPDATE file_extractions SET status = 'processing'"))
    assert update_file_status(doc_id, "retrying", due_at=LATER)

    assert () == claim().files
    assert [doc_id] == [file.doc_id for file in claim(now=LATER).files]


def test_row_may_do_without_a_turn(database):
    """
    A pending row that is given a time and no turn is claimed when that has come.
    """
    fill_batch("first", 0)
    row = {"doc_id": "x", "batch_id": "first", "due_at": LATER, "turn": None}
    with get_session() as session:
        get_or_create_file_extractions([row], session=session)
        due_at = work.next_due_at(session=session)

    assert LATER == due_at
    assert () == claim().files
    assert ["x"] == [file.doc_id for file in claim(now=LATER).files]


class Fairness:
    """Batches of random sizes at random moments, several workers, and the count of what each batch got."""

    def __init__(self):
        self.sizes: dict[str, int] = {}
        self.served = Counter()
        self.in_hand = []
        self.extremes = defaultdict(lambda: [0, 0])
        self.shared_since: dict[tuple[str, str], int] = {}
        self.widest = 0

    def waits(self, name):
        return self.served[name] < self.sizes[name]

    def register(self, size):
        name = f"b{len(self.sizes)}"
        fill_batch(name, size)
        self.sizes[name] = size

    def claim(self, limit):
        page = claim(limit)
        self.served += counts(page)
        if page.files:
            self.in_hand.append(page)

    def finish(self, number):
        if self.in_hand:
            record(self.in_hand.pop(number % len(self.in_hand)).files)

    def give_back(self, number):
        if self.in_hand:
            page = self.in_hand.pop(number % len(self.in_hand))
            assert len(page.files) == release(page)
            self.served -= counts(page)

    def look(self):
        """Note for each two batches how far apart their counts have moved since both wait."""
        waiting = [name for name in self.sizes if self.waits(name)]
        pairs = set(combinations(waiting, 2))
        for pair in list(self.shared_since):
            if pair not in pairs:
                del self.shared_since[pair]
                self.extremes.pop(pair, None)
        for one, other in pairs:
            lead = self.served[one] - self.served[other]
            start = self.shared_since.setdefault((one, other), lead)
            least, most = self.extremes[one, other]
            self.extremes[one, other] = [min(least, lead - start), max(most, lead - start)]
            self.widest = max(self.widest, self.extremes[one, other][1] - self.extremes[one, other][0])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.integers(1, 120)),
        st.tuples(st.just("claim"), st.integers(1, 40)),
        st.tuples(st.just("finish"), st.integers(0, 5)),
    ),
    min_size=10,
    max_size=30,
)
UNSTEADY = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.integers(1, 120)),
        st.tuples(st.just("claim"), st.integers(1, 40)),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("give_back"), st.integers(0, 5)),
    ),
    min_size=10,
    max_size=30,
)


def play(database_url, steps):
    with connected(database_url) as sessions:
        with sessions.writing() as session:
            for table in ("file_extractions", "processing_jobs", "leases"):
                session.execute(text(f"DELETE FROM {table}"))
        fairness = Fairness()
        for step, number in steps:
            getattr(fairness, step)(number)
            fairness.look()
        return fairness


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_unfairness_is_bounded(database_url, steps):
    """
    Between two batches that both wait, what they got differs by no more than two files, whatever comes beside them.
    """
    assert play(database_url, steps).widest <= 2


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(UNSTEADY)
def test_unfairness_is_bounded_when_work_is_given_back(database_url, steps):
    """
    Where pages are given back meanwhile, it differs by no more than what was given back.
    """
    given_back = sum(40 for step, _ in steps if step == "give_back")
    assert play(database_url, steps).widest <= 2 + given_back


@pytest.mark.parametrize("sizes", [(1000, 10), (10, 1000)])
def test_pages_of_both_kinds_hold_every_file_once(database, sizes):
    """
    Claimed to the end, page by page, with half of the attempts repeated, every file is had as often as it is due.
    """
    for number, size in enumerate(sizes):
        fill_batch(f"b{number}", size)
    attempts = Counter()
    while (page := claim(100)).files:
        attempts.update((file.doc_id, file.attempt) for file in page.files)
        again = [file for file in page.files if file.attempt == 1 and int(file.doc_id[-5:]) % 2]
        record(again, FileState.RETRYING, error_type="RETRYABLE", due_at=NOW)
        record([file for file in page.files if file not in again])

    assert {1} == set(attempts.values())
    assert sum(sizes) + sum(size // 2 for size in sizes) == len(attempts)


def test_first_turn_is_that_behind_the_one_served(database):
    """
    The turn of a batch that comes now: 0 in an empty house, else one more than that of the first file that waits.
    """
    found = []
    for _ in range(3):
        with database.writing() as session:
            found.append(turns.next_turn(session))
        fill_batch(f"b{len(found)}", 10)
        record(claim(4).files)

    assert [0, 5, 7] == found
