"""The two state machines: every state has a way out, and only an operator leaves a final one."""

import pytest

from inbox.domain import derive_doc_id, short_id
from inbox.lifecycle import (
    BATCH_EXITS,
    CLAIMABLE_FILE_STATES,
    FILE_EXITS,
    FINAL_BATCH_STATES,
    FINAL_FILE_STATES,
    LEASED_BATCH_STATES,
    LEASED_FILE_STATES,
    BatchState,
    FileState,
    batch_states_before,
    batch_verdict,
    file_states_before,
)

MACHINES = [
    pytest.param(BatchState, BATCH_EXITS, FINAL_BATCH_STATES, id="batch"),
    pytest.param(FileState, FILE_EXITS, FINAL_FILE_STATES, id="file"),
]


def reachable(exits, state):
    found, new = set(), {state}
    while new:
        found |= new
        new = {after for before in new for after in exits[before]} - found
    return found


BATCH_WAYS = """
    received → extracting
    extracting → processing quarantined received failed
    processing → completed partial failed
    partial → processing
    failed → processing received
    quarantined → received
"""
FILE_WAYS = """
    pending → processing failed
    processing → success skipped retrying pending failed
    retrying → processing pending failed
    failed → pending
"""


@pytest.mark.parametrize(("exits", "ways"), [(BATCH_EXITS, BATCH_WAYS), (FILE_EXITS, FILE_WAYS)], ids=["batch", "file"])
def test_ways_are_these_and_no_others(exits, ways):
    """
    A state leads where the design says, and nowhere else.
    """
    drawn = {
        before: set(after.split()) for before, after in (line.split(" → ") for line in ways.strip().split("\n    "))
    }

    assert drawn == {before: {*map(str, after)} for before, after in exits.items() if after}


@pytest.mark.parametrize(("states", "exits", "final"), MACHINES)
def test_every_state_is_in_the_table(states, exits, final):
    """
    The table names every state, and every exit says what causes it.
    """
    assert set(states) == set(exits)
    assert all(cause for ways in exits.values() for cause in ways.values())


@pytest.mark.parametrize(("states", "exits", "final"), MACHINES)
def test_every_open_state_leads_to_a_final_one(states, exits, final):
    """
    From every state that is not final a final one can be reached.
    """
    assert all(reachable(exits, state) & final for state in states if state not in final)


@pytest.mark.parametrize(("states", "exits", "final"), MACHINES)
def test_only_an_operator_leaves_a_final_state(states, exits, final):
    """
    Whatever leads out of a final state is something an operator does.
    """
    assert all("operator" in cause for state in final for cause in exits[state].values())


def test_success_is_for_ever():
    """
    A file recorded as succeeded is never processed again, not even by an operator.
    """
    assert {} == FILE_EXITS[FileState.SUCCESS]
    assert {} == BATCH_EXITS[BatchState.COMPLETED]


def test_leased_states_have_a_way_back_and_an_end():
    """
    A leased state can be released or rescued, and ended when its attempts are used up.
    """
    for state in LEASED_BATCH_STATES:
        assert {BatchState.RECEIVED, BatchState.FAILED} <= BATCH_EXITS[state].keys()
    for state in LEASED_FILE_STATES:
        assert {FileState.PENDING, FileState.RETRYING, FileState.FAILED} <= FILE_EXITS[state].keys()


def test_entries_are_the_exits_turned_round():
    """
    The states before a state are those whose exits lead there.
    """
    assert CLAIMABLE_FILE_STATES == file_states_before(FileState.PROCESSING)
    assert {BatchState.EXTRACTING, BatchState.PARTIAL, BatchState.FAILED} == batch_states_before(BatchState.PROCESSING)


@pytest.mark.parametrize(
    ("succeeded", "failed", "verdict"),
    [(3, 0, "completed"), (0, 0, "completed"), (2, 1, "partial"), (0, 1, "failed")],
)
def test_verdict_of_a_batch(succeeded, failed, verdict):
    """
    Nothing failed is completed, some is partial, and nothing but failures is failed.
    """
    assert verdict == batch_verdict(succeeded=succeeded, failed=failed)


def test_identity_of_a_file_is_that_of_its_place():
    """
    The same member of the same batch has the same id everywhere, and any other place another.
    """
    one = derive_doc_id("b1", "a/b.txt")

    assert one == derive_doc_id("b1", "a/b.txt")
    assert 4 == len(
        {one, derive_doc_id("b1", "a/c.txt"), derive_doc_id("b2", "a/b.txt"), derive_doc_id("b1a", "/b.txt")}
    )
    assert 32 == len(one)
    assert 12 == len(short_id("f" * 64))
