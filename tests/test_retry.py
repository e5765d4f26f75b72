"""When to try again, and after how long."""

import asyncio

import backoff
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox.core.errors import LLMError, ParseError, PermanentError, RateLimitError, RetryableError, TimeoutError
from inbox.core.retry import calculate_backoff, delay_after, retry_with_backoff, should_retry


def highest(_low, high):
    return high


def lowest(low, _high):
    return low


@pytest.fixture
def waits(monkeypatch):
    """Collect what would be waited for, without waiting."""
    collected = []

    async def sleep(seconds):
        collected.append(seconds)

    monkeypatch.setattr(backoff._sync.time, "sleep", collected.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return collected


@pytest.mark.parametrize(
    ("attempt", "least", "most"), [(0, 2, 2), (1, 4, 6), (2, 8, 12), (3, 16, 24), (4, 32, 48), (5, 60, 60)]
)
def test_schedule_with_base_two(attempt, least, most):
    """
    The waits are 2 s, 4 to 6, 8 to 12, 16 to 24 and so on, up to the cap of a minute.
    """
    assert least == calculate_backoff(attempt, 2.0, 60.0, uniform=lowest)
    assert most == calculate_backoff(attempt, 2.0, 60.0, uniform=highest)


@given(st.integers(0, 10_000), st.floats(0, 1e6), st.floats(0, 1e6))
def test_wait_stays_within_its_bounds(attempt, base, cap):
    """
    Whatever the attempt, the wait lies between the exponential and one and a half times it, and under the cap.
    """
    exponential = base * 2.0 ** min(attempt, 64)

    wait = calculate_backoff(attempt, base, cap)

    assert min(exponential, cap) <= wait <= min(exponential * 1.5, cap)


def test_first_wait_has_no_jitter():
    """
    Chance is not even asked for the first repetition.
    """
    assert 2.0 == calculate_backoff(0, 2.0, uniform=lambda *_: pytest.fail("asked"))


@pytest.mark.parametrize("arguments", [(-1, 2.0, 60.0), (0, -1.0, 60.0), (0, 2.0, -1.0)])
def test_negative_arguments_are_mistakes(arguments):
    """
    A negative attempt, base or cap is a mistake of the caller.
    """
    with pytest.raises(ValueError, match="negative"):
        calculate_backoff(*arguments)


@pytest.mark.parametrize(
    ("error", "attempt", "again"),
    [
        (RetryableError(), 1, True),
        (TimeoutError(), 2, True),
        (RateLimitError(), 2, True),
        (LLMError(), 2, True),
        (RetryableError(), 3, False),
        (RetryableError(), 4, False),
        (PermanentError(), 1, False),
        (ParseError(), 1, False),
        (RuntimeError("a surprise"), 1, False),
        (ConnectionResetError(), 1, True),
    ],
)
def test_only_retryable_errors_with_attempts_left_are_retried(error, attempt, again):
    """
    Another attempt is due after a transient error, and only while attempts are left.
    """
    assert again is should_retry(error, attempt, 3)


def test_retry_after_wins():
    """
    A server's own retry-after is the wait, whatever the schedule says.
    """
    assert 90.0 == delay_after(RateLimitError(retry_after=90), 1, base=2.0)
    assert 0.0 == delay_after(RateLimitError(retry_after=0), 1, base=2.0)
    assert 2.0 == delay_after(RateLimitError(), 1, base=2.0)


def test_decorated_function_is_repeated_on_the_schedule(waits):
    """
    A transient failure is tried again after the schedule's waits, and the result is the successful one.
    """
    calls = []

    @retry_with_backoff(max_attempts=3, base_delay=2.0)
    def flaky(word):
        calls.append(word)
        if len(calls) < 3:
            raise RetryableError("not yet")
        return word.upper()

    assert "DONE" == flaky("done")
    assert 3 == len(calls)
    assert 2.0 == waits[0]
    assert 4.0 <= waits[1] <= 6.0


def test_coroutine_function_is_repeated_too(waits):
    """
    Decorated coroutine functions are awaited again in the same way.
    """
    calls = []

    @retry_with_backoff(max_attempts=2)
    async def flaky():
        calls.append(1)
        if len(calls) < 2:
            raise TimeoutError("slow")
        return "done"

    assert "done" == asyncio.run(flaky())
    assert [2.0] == waits


def test_last_error_comes_out_unchanged(waits):
    """
    When the attempts are used up, the caller sees the last error itself.
    """
    error = RetryableError("never")

    @retry_with_backoff(max_attempts=3)
    def broken():
        raise error

    with pytest.raises(RetryableError) as raised:
        broken()

    assert error is raised.value
    assert 2 == len(waits)


def test_permanent_error_is_not_repeated(waits):
    """
    What another attempt cannot mend is raised at once.
    """

    @retry_with_backoff(max_attempts=3)
    def broken():
        raise ParseError("no")

    with pytest.raises(ParseError):
        broken()

    assert [] == waits


def test_named_exceptions_alone_are_repeated(waits):
    """
    With a list of exceptions only those are repeated, also ones that are not retryable by themselves.
    """

    @retry_with_backoff(max_attempts=2, retryable_exceptions=(KeyError,))
    def broken(error):
        raise error

    with pytest.raises(KeyError):
        broken(KeyError("again"))
    with pytest.raises(RetryableError):
        broken(RetryableError("not listed"))

    assert [2.0] == waits


def test_retry_after_is_waited_for(waits):
    """
    The decorator waits as long as the server asked.
    """

    @retry_with_backoff(max_attempts=2)
    def limited():
        raise RateLimitError("patience", retry_after=7.5)

    with pytest.raises(RateLimitError):
        limited()

    assert [7.5] == waits


def test_wait_is_announced(waits):
    """
    Whoever asked to be told hears of each wait before it begins.
    """
    heard = []

    @retry_with_backoff(max_attempts=2, on_backoff=lambda details: heard.append((details["wait"], len(waits))))
    def broken():
        raise RetryableError("no")

    with pytest.raises(RetryableError):
        broken()

    assert [(2.0, 0)] == heard


@pytest.mark.parametrize("attempts", [0, -1])
def test_less_than_one_attempt_is_a_mistake(attempts):
    """
    Not even one attempt is a mistake of the caller, and not the same as without end.
    """
    with pytest.raises(ValueError, match="at least 1"):
        retry_with_backoff(max_attempts=attempts)


def test_without_a_limit_it_goes_on(waits):
    """
    With no limit of attempts a transient failure is repeated until it is over, at the pace of the cap.
    """
    calls = []

    @retry_with_backoff(max_attempts=None, base_delay=1.0, max_delay=5.0)
    def flaky():
        calls.append(1)
        if len(calls) <= 50:
            raise ConnectionResetError
        return "done"

    assert "done" == flaky()
    assert {5.0} == set(waits[3:])
    assert 50 == len(waits)


def test_each_call_has_its_own_schedule(waits):
    """
    A second call of the same function begins at the first wait again.
    """

    @retry_with_backoff(max_attempts=2)
    def broken():
        raise RetryableError

    for _ in range(2):
        with pytest.raises(RetryableError):
            broken()

    assert [2.0, 2.0] == waits


def test_decorated_function_stays_itself():
    """
    The decorated function keeps its name and its docstring.
    """

    @retry_with_backoff()
    def documented():
        """Say something."""

    assert ("documented", "Say something.") == (documented.__name__, documented.__doc__)


def test_caller_hears_of_each_wait(waits):
    """
    Before each wait the caller is told what went wrong and how long it will be.
    """
    heard = []
    error = RetryableError("again")

    @retry_with_backoff(max_attempts=2, on_backoff=heard.append)
    def broken():
        raise error

    with pytest.raises(RetryableError):
        broken()

    assert [(error, 2.0)] == [(details["exception"], details["wait"]) for details in heard]
