"""
When to try again, and after how long.

The schedule (base 2 s): attempt 0 waits 2 s; attempt 1: 4 s plus up to 2 s of jitter; attempt 2: 8 s plus up to 4 s;
attempt 3: 16 s plus up to 8 s; capped at `max_delay`. That is `base · 2ⁿ` plus a uniform share of half of it, and no
jitter before the first repetition. The arithmetic is pure: chance comes in as an argument.
"""

import itertools
import random
from collections.abc import Callable, Generator
from typing import Any, Final, ParamSpec, TypeVar

import backoff

from inbox.core.errors import is_retryable, retry_after_seconds

P = ParamSpec("P")
T = TypeVar("T")

MAX_DELAY_SECONDS: Final = 60.0
LONGEST_WAIT_SECONDS: Final = 86_400.0
"""Beyond a day a wish for patience is a slip; whatever waits for longer was written by a clock that was wrong."""
_MAX_EXPONENT: Final = 64  # past it every schedule is at its cap, and 2**n leaves the floats


def calculate_backoff(
    attempt: int,
    base: float = 2.0,
    max_delay: float = MAX_DELAY_SECONDS,
    *,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """
    Return the seconds to wait after attempt `attempt`, counted from 0.

    `uniform(low, high)` is the source of chance. Raises ValueError for a negative argument.
    """
    if attempt < 0 or base < 0 or max_delay < 0:
        raise ValueError(f"attempt, base and max_delay must not be negative: {attempt}, {base}, {max_delay}")
    delay = base * 2.0 ** min(attempt, _MAX_EXPONENT)
    jitter = uniform(0.0, delay / 2) if attempt > 0 else 0.0
    return min(delay + jitter, max_delay)


def should_retry(error: BaseException, attempt: int, max_attempts: int) -> bool:
    """
    Say whether another attempt is due after `error` ended attempt number `attempt` (numbered from 1).

    Only retryable errors are tried again, and only while attempts are left.
    """
    return attempt < max_attempts and is_retryable(error)


def delay_after(error: BaseException, attempt: int, base: float, max_delay: float = MAX_DELAY_SECONDS) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 1); a retry-after of up to a day wins."""
    asked = retry_after_seconds(error)
    return (
        min(asked, LONGEST_WAIT_SECONDS)
        if asked is not None
        else calculate_backoff(max(attempt - 1, 0), base, max_delay)
    )


def retry_with_backoff(
    max_attempts: int | None = 3,
    base_delay: float = 2.0,
    max_delay: float = MAX_DELAY_SECONDS,
    retryable_exceptions: tuple[type[BaseException], ...] | None = None,
    *,
    on_backoff: Callable[[Any], None] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """
    Decorate a function or coroutine function so that transient failures are tried again on the schedule.

    With `retryable_exceptions` just those types are repeated; without, whatever `classify_error` calls retryable.
    `max_attempts` counts the first call too; None means without end. The last error is raised unchanged.
    `on_backoff` receives the `backoff` library's details before each wait. Raises ValueError for less than one attempt.
    """
    if max_attempts is not None and max_attempts < 1:
        raise ValueError(f"max_attempts must be at least 1: {max_attempts}")

    def is_final(error: Exception) -> bool:
        return not (isinstance(error, retryable_exceptions) if retryable_exceptions else is_retryable(error))

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        retrying = backoff.on_exception(
            _schedule,
            Exception,
            max_tries=max_attempts,
            giveup=is_final,
            jitter=None,  # the schedule brings its own
            on_backoff=on_backoff,
            logger=None,
            base=base_delay,
            max_delay=max_delay,
        )
        return retrying(function)

    return decorate


def _schedule(base: float, max_delay: float) -> Generator[float, Any, None]:
    """Answer each error that `backoff` sends in with the seconds to wait; its first, empty send only primes us."""
    wait = 0.0
    for attempt in itertools.count(1):
        error = yield wait
        wait = delay_after(error, attempt, base, max_delay)
