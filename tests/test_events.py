"""The events: which one an attempt's outcome is."""

from datetime import UTC, datetime, timedelta

import pytest

from inbox.domain import ClaimedFile, Outcome
from inbox.events import (
    AttemptFailed,
    AttemptSkipped,
    AttemptSucceeded,
    AttemptToRepeat,
    OutcomeLost,
    attempt_event,
)
from inbox.lifecycle import FileState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLAIMED = ClaimedFile("d1", "b1", "r1", "extracted/b1/a.txt", "a.txt", "a.txt", "text", 3, "00", 2, "token")
COMMON = ("b1", "d1", "a.txt", 2, 40)


def outcome(state, **more):
    return Outcome("d1", "token", state, NOW, 40, **more)


@pytest.mark.parametrize(
    ("ended", "event"),
    [
        (outcome(FileState.SUCCESS), AttemptSucceeded(*COMMON)),
        (
            outcome(FileState.SKIPPED, skip_reason="UNREADABLE_TYPE"),
            AttemptSkipped(*COMMON, reason_code="UNREADABLE_TYPE"),
        ),
        (
            outcome(
                FileState.RETRYING, error_type="TIMEOUT", error_message="late", due_at=NOW + timedelta(seconds=4.5)
            ),
            AttemptToRepeat(*COMMON, error_type="TIMEOUT", error="late", wait_seconds=4.5),
        ),
        (
            outcome(FileState.FAILED, error_type="PARSE_ERROR", error_message="bad"),
            AttemptFailed(*COMMON, error_type="PARSE_ERROR", error="bad"),
        ),
    ],
    ids=lambda value: getattr(value, "state", None),
)
def test_outcome_that_counts_is_told_as_what_it_is(ended, event):
    """
    Each way an attempt can end has its event, with everything somebody would ask next.
    """
    assert event == attempt_event(CLAIMED, ended, counts=True)


def test_outcome_that_came_too_late_is_told_as_lost():
    """
    An outcome whose lease was taken over is lost, whatever it was.
    """
    assert OutcomeLost("b1", "d1", 2) == attempt_event(CLAIMED, outcome(FileState.SUCCESS), counts=False)
