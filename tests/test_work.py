"""Files on their way: claimed in pages, recorded in groups, given back, taken over."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from databases import LIFE, NOW, fill_batch
from sqlalchemy import event, text

from inbox.core.errors import DatabaseRefusedError
from inbox.database import work
from inbox.database.connection import get_session
from inbox.database.leasing import open_tokens
from inbox.database.models import FileExtraction
from inbox.database.operations import get_batch_files, get_file_by_doc_id, mark_file_processing_start
from inbox.domain import Outcome
from inbox.lifecycle import FileState

LATER = NOW + timedelta(seconds=10)


def claim(owner="worker", *, limit=100, now=NOW, finished=()):
    with get_session() as session:
        return work.claim_files(owner, limit=limit, now=now, life=LIFE, session=session, finished_tokens=finished)


def record(*outcomes):
    with get_session() as session:
        return work.record_outcomes(outcomes, session=session)


def success(claimed, **changes):
    return replace(Outcome(claimed.doc_id, claimed.token, FileState.SUCCESS, LATER, 5, result={"ok": True}), **changes)


def states():
    return [file.status for file in get_batch_files("b1")]


def test_page_holds_the_oldest_due_files(database):
    """
    A page holds due files in the archive's order, up to its limit, each with what an attempt needs to know.
    """
    fill_batch("b1", 5)
    page = claim(limit=3)
    file = page.files[0]

    assert ["folder/0.txt", "folder/1.txt", "folder/2.txt"] == [claimed.member_path for claimed in page.files]
    assert ("b1", "run-b1", 1, 10, page.token) == (
        file.batch_id,
        file.run_id,
        file.attempt,
        file.size_bytes,
        file.token,
    )
    assert ["processing"] * 3 + ["pending"] * 2 == states()


def test_claimed_file_is_not_claimed_again(database):
    """
    What one worker has in hand no other worker gets, and an empty page leaves no lease.
    """
    fill_batch("b1", 2)
    first = claim("a")
    second = claim("b")
    with database.reading() as session:
        tokens = open_tokens(session=session)

    assert (2, 0) == (len(first.files), len(second.files))
    assert {first.token} == tokens


def test_claimers_at_once_share_the_files(database):
    """
    Many claimers at once get every file once, and together all of them.
    """
    doc_ids = fill_batch("b1", 200)
    with ThreadPoolExecutor(5) as pool:
        pages = list(pool.map(lambda n: claim(f"{n}", limit=20), range(20)))
    while (last := claim(limit=50)).files:
        pages.append(last)

    claimed = [file.doc_id for page in pages for file in page.files]
    assert sorted(doc_ids) == sorted(claimed)


def test_file_is_claimed_when_it_is_due(database):
    """
    A file that waits for its repetition is not claimed before its time, and then with the next attempt's number.
    """
    (doc_id,) = fill_batch("b1", 1)
    (claimed,) = claim().files
    record(success(claimed, state=FileState.RETRYING, due_at=LATER, error_type="RETRYABLE", error_message="later"))
    with database.reading() as session:
        due_at = work.next_due_at(session=session)

    assert LATER == due_at
    assert () == claim(now=LATER - timedelta(microseconds=1)).files
    assert [2] == [file.attempt for file in claim(now=LATER).files]
    assert 1 == get_file_by_doc_id(doc_id).retry_count


def test_attempt_is_counted_when_claimed(database):
    """
    A claim alone counts the attempt: a worker that dies with the file has used it up.
    """
    fill_batch("b1", 1)
    (claimed,) = claim().files
    record(success(claimed, state=FileState.RETRYING, due_at=NOW, error_type="RETRYABLE"))
    claim()

    assert 1 == get_batch_files("b1")[0].retry_count


def test_group_of_outcomes_is_recorded(database):
    """
    Every kind of outcome is written with its result, its reason and its times.
    """
    fill_batch("b1", 4)
    one, two, three, four = claim().files
    counted = record(
        success(one),
        success(two, state=FileState.FAILED, result=None, error_type="PARSE_ERROR", error_message="broken"),
        success(three, state=FileState.RETRYING, result=None, due_at=LATER, error_type="TIMEOUT"),
        success(four, state=FileState.SKIPPED, result={"why": 1}, skip_reason="NO_HANDLER"),
    )
    files = get_batch_files("b1")

    assert {one.doc_id, two.doc_id, three.doc_id, four.doc_id} == counted
    assert ["success", "failed", "retrying", "skipped"] == [file.status for file in files]
    assert [{"ok": True}, None, None, {"why": 1}] == [file.raw_extraction for file in files]
    assert [LATER, LATER, None, LATER] == [file.processing_completed_at for file in files]
    assert (None, "NO_HANDLER", "PARSE_ERROR") == (files[0].lease_token, files[3].skip_reason, files[1].error_type)


def test_outcome_without_the_lease_does_not_count(database):
    """
    An outcome under a token that is not the row's any more changes nothing and is reported as lost.
    """
    fill_batch("b1", 2)
    one, two = claim().files
    with get_session() as session:
        work.release_files(one.token, session=session)
    (again, _) = claim("other").files
    counted = record(success(one), success(two, token=again.token))

    assert {two.doc_id} == counted
    assert ["processing", "success"] == states()


def test_outcome_counts_once(database):
    """
    An outcome that is sent again, because the answer to the first was lost, changes nothing.
    """
    fill_batch("b1", 1)
    (claimed,) = claim().files

    assert {claimed.doc_id} == record(success(claimed))
    assert set() == record(success(claimed, state=FileState.FAILED))
    assert ["success"] == states()
    assert set() == record()


@pytest.mark.parametrize(
    ("poison", "refused_by"),
    [
        ("a\0b", {"postgresql"}),
        ("\ud800", {"postgresql", "sqlite"}),
        (float("nan"), {"postgresql", "sqlite"}),
        ({1, 2}, {"postgresql", "sqlite"}),
    ],
    ids=["NUL", "surrogate", "NaN", "set"],
)
def test_poisonous_result_costs_its_own_file_alone(database, database_kind, poison, refused_by):
    """
    A value that the database cannot store fails that file with the database's reason; the others are unharmed.
    """
    fill_batch("b1", 9)
    files = claim().files
    results = [{"value": poison} if number in {4, 7} else {"n": number} for number in range(9)]
    counted = record(*(success(file, result=result) for file, result in zip(files, results, strict=True)))
    stored = get_batch_files("b1")
    poisoned = [stored.pop(7), stored.pop(4)]

    assert {file.doc_id for file in files} == counted
    assert [("success", {"n": number}) for number in (0, 1, 2, 3, 5, 6, 8)] == [
        (file.status, file.raw_extraction) for file in stored
    ]
    if database_kind in refused_by:
        assert [("failed", "PERMANENT", None)] * 2 == [
            (file.status, file.error_type, file.raw_extraction) for file in poisoned
        ]
        assert all("cannot store" in file.error_message for file in poisoned)
    else:
        assert ["success", "success"] == [file.status for file in poisoned]


def test_poison_without_the_lease_changes_nothing(database):
    """
    A value that cannot be stored does not fail a file that somebody else holds by now.
    """
    fill_batch("b1", 1)
    (claimed,) = claim().files

    assert set() == record(success(claimed, token="lost", result={"value": float("nan")}))
    assert ["processing"] == states()


def test_trouble_that_is_no_value_is_not_bisected(database):
    """
    When the database itself is in trouble nothing is charged to a file: the group fails at once, to be sent again.
    """
    fill_batch("b1", 8)
    files = claim().files
    engine, tried = database.factory.kw["bind"], []
    with get_session() as session:
        session.execute(text("ALTER TABLE file_extractions RENAME TO elsewhere"))
    event.listen(engine, "before_cursor_execute", lambda *arguments: tried.append(arguments[2].split()[0]))
    with pytest.raises(DatabaseRefusedError):
        record(*map(success, files))
    with get_session() as session:
        session.execute(text("ALTER TABLE elsewhere RENAME TO file_extractions"))

    assert 1 == tried.count("UPDATE")
    assert ["processing"] * 8 == states()


@pytest.mark.parametrize("result", [{"größe": [1, None, 2**60]}, ["x"], "text", "null", 7, 0.1 + 0.2, False, {}, None])
def test_result_comes_back_as_it_was(database, result):
    """
    JSON of any shape is stored as it is.
    """
    fill_batch("b1", 1)
    record(*(success(file, result=result) for file in claim().files))

    assert repr(result) == repr(get_batch_files("b1")[0].raw_extraction)  # False is not 0


def test_rows_under_claim_are_passed_over(database, database_kind):
    """
    A claimer does not wait for another one that has not committed yet: it takes the files behind.
    """
    if database_kind == "sqlite":
        pytest.skip("SQLite has one writer: the second claimer waits for the first")
    fill_batch("b1", 4)
    with get_session() as session:
        first = work.claim_files("a", limit=2, now=NOW, life=LIFE, session=session)
        second = claim("b", limit=2)

    assert [0, 1, 2, 3] == [int(file.doc_id[-1]) for page in (first, second) for file in page.files]


def test_release_is_no_attempt(database):
    """
    Files given back are pending again, or wait for the same attempt as before.
    """
    fill_batch("b1", 3)
    (first,) = claim(limit=1).files
    record(success(first, state=FileState.RETRYING, due_at=NOW, error_type="RETRYABLE"))
    page = claim()
    with get_session() as session:
        released = work.release_files(page.token, session=session)
    found = {file.doc_id: (file.status, file.retry_count) for file in get_batch_files("b1")}

    assert 3 == released
    assert ("retrying", 0) == found.pop(first.doc_id)
    assert [("pending", 0)] * 2 == list(found.values())
    assert {first.doc_id: 2, **dict.fromkeys(found, 1)} == {file.doc_id: file.attempt for file in claim().files}


def test_finished_page_ends_its_lease_with_the_next_claim(database):
    """
    The lease of a page whose outcomes are all recorded ends together with the next claim.
    """
    fill_batch("b1", 2)
    first = claim(limit=1)
    record(*map(success, first.files))
    second = claim(finished=[first.token])
    with database.reading() as session:
        assert {second.token} == open_tokens(session=session)


def test_files_in_hand_are_found_by_their_token(database):
    """
    What is in processing under a token is found, and what was started by hand under none.
    """
    doc_ids = fill_batch("b1", 3)
    page = claim(limit=2)
    mark_file_processing_start(doc_ids[2])
    with database.reading() as session:
        under_lease = {file.doc_id for file in work.find_held_files(page.token, session=session)}
        by_hand = work.find_held_files(None, session=session)

    assert set(doc_ids[:2]) == under_lease
    assert [doc_ids[2]] == [file.doc_id for file in by_hand]
    assert (1, "") == (work.claimed_of(by_hand[0]).attempt, work.claimed_of(by_hand[0]).token)


def test_overdue_batch_ends_its_files(database):
    """
    Every file of a batch that is not finished fails at once; an outcome still under way does not count any more.
    """
    fill_batch("b1", 3)
    one, two, _ = claim().files
    record(success(one))
    with get_session() as session:
        ended = work.fail_unfinished_files(
            "b1", error_type="TIMEOUT", message="out of time", now=LATER, session=session
        )

    assert 2 == ended
    assert set() == record(success(two))
    assert ["success", "failed", "failed"] == states()


def test_many_outcomes_are_one_group(database):
    """
    A group of a thousand is recorded as a whole.
    """
    fill_batch("b1", 1000)
    files = claim(limit=1000).files

    assert 1000 == len(record(*map(success, files)))
    with database.reading() as session:
        assert 1000 == session.query(FileExtraction).filter_by(status="success").count()
        assert work.next_due_at(session=session) is None


RESULTS = [
    *(True, False, None, 0, 0.1 + 0.2, 1.5e-07, 12345678901234567),
    *("text", '"quoted"', "", "null", [], {}, [True, 0.30000000000000004], {"a": False, "b": None, "größe": 0.1}),
]


def test_every_result_comes_back_as_it_was(database):
    """
    Whatever JSON can hold is kept exactly, also where a result is nothing but a truth, a number or a text.
    """
    fill_batch("b1", len(RESULTS))
    files = claim().files
    record(*(success(file, result=result) for file, result in zip(files, RESULTS, strict=True)))
    kept = [file.raw_extraction for file in get_batch_files("b1")]

    assert RESULTS == kept
    assert [type(result) for result in RESULTS] == [type(result) for result in kept]
