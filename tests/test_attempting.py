"""One attempt on one file: whatever a handler returns or raises becomes an outcome."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pipeline_parts import Clock

from inbox.core.errors import ParseError, RateLimitError, RetryableError
from inbox.domain import ClaimedFile
from inbox.handlers.base import File, HandlerSpec, Skip
from inbox.handlers.registry import Registry
from inbox.lifecycle import FileState
from inbox.pipeline.dispatching.attempting import Attempting

CLAIMED = ClaimedFile("d1", "b1", "r1", "extracted/b1/a.txt", "a.txt", "a.txt", "text", 1, "0" * 64, 1, "t1")
FILE = File(Path("/x"), "a.txt", "a.txt", "text", 1, "0" * 64, "d1", "b1", "r1", 1)


def attempt(function, claimed=CLAIMED):
    registry = Registry((HandlerSpec("test", function),))
    return Attempting(registry, Clock(), max_attempts=3, base_delay_seconds=2.0).attempt(claimed, FILE)


def raising(error):
    def handler(_file):
        raise error

    return handler


@pytest.mark.parametrize(
    ("function", "state", "result", "reason"),
    [
        (lambda _: {"a": (1, 2)}, FileState.SUCCESS, {"a": [1, 2]}, None),
        (lambda _: None, FileState.SUCCESS, None, None),
        (lambda _: Skip("NOTHING", {"a": 1}), FileState.SKIPPED, {"a": 1}, "NOTHING"),
    ],
)
def test_what_a_handler_returns_is_the_result(function, state, result, reason):
    """
    A return is a success with its result as JSON can hold it, a Skip is skipped with its reason.
    """
    outcome = attempt(function)

    assert (state, result, reason, "t1") == (outcome.state, outcome.result, outcome.skip_reason, outcome.token)


@pytest.mark.parametrize(
    ("error", "number", "state", "word"),
    [
        (RetryableError("later"), 1, FileState.RETRYING, "RETRYABLE"),
        (ConnectionResetError(), 2, FileState.RETRYING, "RETRYABLE"),
        (RetryableError("later"), 3, FileState.FAILED, "RETRYABLE"),
        (ParseError("broken"), 1, FileState.FAILED, "PARSE_ERROR"),
        (ZeroDivisionError("a bug"), 1, FileState.FAILED, "UNKNOWN"),
        (SystemExit(3), 1, FileState.FAILED, "UNKNOWN"),
        (KeyboardInterrupt(), 1, FileState.FAILED, "UNKNOWN"),
    ],
)
def test_whatever_a_handler_raises_becomes_an_outcome(error, number, state, word):
    """
    Transient errors wait for another attempt while there is one, everything else is final; nothing gets through.
    """
    outcome = attempt(raising(error), replace(CLAIMED, attempt=number))

    assert (state, word) == (outcome.state, outcome.error_type)
    assert (outcome.due_at is not None) == (state is FileState.RETRYING)


def test_wait_is_the_schedules_or_the_servers():
    """
    The next attempt is due after the schedule's wait, or when the server said.
    """
    first = attempt(raising(RetryableError("later")))
    asked = attempt(raising(RateLimitError("slow", retry_after=90)))

    assert timedelta(seconds=2) == first.due_at - first.finished_at
    assert timedelta(seconds=90) == asked.due_at - asked.finished_at


def test_result_that_is_no_json_is_the_handlers_fault():
    """
    A result that JSON cannot express fails the file for good and names the place.
    """
    outcome = attempt(lambda _: {"image": b"x"})

    assert (FileState.FAILED, "PERMANENT") == (outcome.state, outcome.error_type)
    assert "$.image" in outcome.error_message
