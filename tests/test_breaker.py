"""The circuit breaker by itself: what opens it, what never does, and how it finds out that all is well again."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox.core.errors import (
    ConfigurationError,
    LLMError,
    ParseError,
    PermanentError,
    RateLimitError,
    RetryableError,
)
from inbox.domain import Trouble
from inbox.pipeline.dispatching.breaker import Breaker, Effect, share_of, trouble_of

DOWN = Trouble("down", "the endpoint is down")
OTHER = Trouble("other", "it is starting")


def breaker(outcomes=10):
    return Breaker(outcomes, uniform=lambda low, high: low)


def noted(made, *troubles, now=0.0):
    return [made.note(f"d{number}", trouble, now) for number, trouble in enumerate(troubles)]


def opened(outcomes=10):
    made = breaker(outcomes)
    noted(made, *[DOWN] * outcomes)
    return made


def test_one_cause_opens_it():
    """
    It opens with the outcome that makes four fifths of the latest fail for one cause, and not before there are enough.
    """
    made = breaker()

    assert [Effect.NONE] * 9 + [Effect.OPENED] == noted(made, None, None, *[DOWN] * 8)
    assert (True, "the endpoint is down", 8) == (made.is_open, made.reason, made.failures)
    assert tuple(f"d{number}" for number in range(2, 10)) == made.charged


def test_file_that_failed_twice_opened_it_twice():
    """
    What opened it is told for each failure, since each has cost its file an attempt.
    """
    made = breaker()
    for _ in range(5):
        for doc_id in ("d1", "d2"):
            made.note(doc_id, DOWN, 0.0)

    assert ("d1", "d2") * 5 == made.charged


def test_older_outcomes_are_forgotten():
    """
    Whatever worked before counts no more than the latest outcomes do.
    """
    made = breaker()
    before = noted(made, *[None] * 1000, *[DOWN] * 7)

    assert {Effect.NONE} == set(before)
    assert Effect.OPENED is made.note("d", DOWN, 0.0)


@pytest.mark.parametrize("others", [[None] * 3, [OTHER] * 3, [OTHER, None, OTHER]])
def test_several_causes_do_not_open_it(others):
    """
    Fewer than four fifths with one cause are the files' own trouble.
    """
    assert {Effect.NONE} == set(noted(breaker(), *[*[DOWN] * 7, *others] * 5))


def test_success_closes_it():
    """
    One file that gets through closes it, and then it takes as many failures as ever to open it.
    """
    made = opened()

    assert Effect.CLOSED is made.note("probe", None, 1.0)
    assert (False, 0.0, 1) == (made.is_open, made.seconds_to_probe(1.0), made.probes)
    assert [Effect.NONE] * 9 + [Effect.OPENED] == noted(made, *[DOWN] * 10, now=2.0)


def test_probe_with_a_known_cause_says_nothing_about_its_file():
    """
    A probe is held when it fails for a cause known already; another cause is told and known from then on.
    """
    made = opened()
    effects = noted(made, DOWN, OTHER, OTHER, DOWN)

    assert [Effect.HELD, Effect.CHANGED, Effect.HELD, Effect.HELD] == effects
    assert 4 == made.probes


def test_waits_grow_to_a_minute():
    """
    The waits before the probes are 1 s, 2, 4 and so on, a minute at the most.
    """
    made, waits = opened(), []
    for _ in range(9):
        waits.append(made.seconds_to_probe(0.0))
        made.note("probe", DOWN, 0.0)

    assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == waits
    assert (15.0, 0.0) == (made.seconds_to_probe(45.0), made.seconds_to_probe(100.0))


def test_waits_are_spread():
    """
    Up to half as much is added by chance, so that many workers do not probe in step.
    """
    made = Breaker(1, uniform=lambda low, high: high)
    noted(made, DOWN, DOWN)

    assert 3.0 == made.seconds_to_probe(0.0)


@pytest.mark.parametrize(("asked", "wait"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (600.0, 600.0)])
def test_server_that_asks_for_patience_gets_it(asked, wait):
    """
    A wait that the other side asked for is kept when it is longer than the scheduled one.
    """
    made = breaker()
    noted(made, *[Trouble("down", "down", asked)] * 10)

    assert wait == made.seconds_to_probe(0.0)


@pytest.mark.parametrize(
    "pair",
    [
        ("cannot read page 3 of 17", "cannot read page 12 of 2000"),
        ("no column 'price' here", "no column 'amount' here"),
        ("no such file: /shared/extracted/b1/a.pdf", "no such file: /shared/extracted/b2/c/d.pdf"),
        ("a.txt: the server is gone", "b.txt: the server is gone"),
        ("busy (request 5f3a9c01)", "busy (request 77de02ab)"),
    ],
)
def test_cause_is_what_files_have_in_common(pair):
    """
    Numbers, quoted parts, paths and the file's own name make no other cause.
    """
    one, other = (
        trouble_of(RuntimeError(text), names=(name,)) for text, name in zip(pair, ("a.txt", "b.txt"), strict=True)
    )

    assert one.cause == other.cause
    assert f"UNKNOWN: RuntimeError: {pair[0]}" == one.reason


@pytest.mark.parametrize(
    "pair",
    [
        (RuntimeError("no room"), RuntimeError("no route")),
        (RuntimeError("no room"), OSError("no room")),
        (RetryableError("answered", reason_code="HTTP_500"), RetryableError("answered", reason_code="HTTP_503")),
        (RateLimitError("later"), LLMError("later")),
    ],
)
def test_other_types_and_words_are_other_causes(pair):
    """
    Errors of another type, code or wording have another cause.
    """
    assert trouble_of(pair[0]).cause != trouble_of(pair[1]).cause


@pytest.mark.parametrize(
    "error",
    [
        ParseError("encrypted"),
        PermanentError("no such customer"),
        PermanentError("no", reason_code="HTTP_422"),
        PermanentError("no", reason_code="HTTP_404"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)
def test_errors_about_the_file_are_no_trouble(error):
    """
    What is said about a file's content, or for good by the handler, says nothing about the next file.
    """
    assert trouble_of(error) is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError("late"),
        ImportError("libmagic.so: cannot open shared object file"),
        MemoryError(),
        ConfigurationError("no key"),
        *(PermanentError("no", reason_code=f"HTTP_{status}") for status in (301, 308, 401, 403, 405, 407)),
    ],
)
def test_errors_about_the_handler_are_trouble(error):
    """
    A connection, a library, a setting, or an answer that is about address or credentials concerns every file.
    """
    assert trouble_of(error) is not None


@pytest.mark.parametrize(("asked", "kept"), [(30, 30.0), (1e12, 86_400.0)])
def test_trouble_keeps_what_the_server_asked_for(asked, kept):
    """
    The wait that an error asks for goes with it, up to a day.
    """
    assert kept == trouble_of(RateLimitError("later", retry_after=asked)).retry_after_seconds


@pytest.mark.parametrize(
    ("outcomes", "workers", "share"),
    [(20, 1, 20), (20, 2, 10), (20, 3, 7), (20, 4, 5), (20, 16, 5), (3, 1, 3), (3, 16, 3), (1000, 16, 63), (0, 4, 0)],
)
def test_workers_share_the_outcomes(outcomes, workers, share):
    """
    Each worker looks at its share of the outcomes, and at five at least, unless fewer are wanted.
    """
    assert share == share_of(outcomes, workers)


@given(
    size=st.integers(1, 8),
    steps=st.lists(st.tuples(st.sampled_from([None, DOWN, OTHER]), st.floats(0, 100)), max_size=80),
)
def test_breaker_does_what_its_rules_say(size, steps):
    """
    Whatever comes in whatever order: open exactly after enough failures of one cause, closed exactly by what works.
    """
    made, now, latest, known = Breaker(size), 0.0, [], None
    for trouble, seconds in steps:
        now += seconds
        if known is not None and made.seconds_to_probe(now):
            continue  # no file is handed out meanwhile
        effect = made.note("d", trouble, now)
        if known is None:
            latest = [*latest, trouble and trouble.cause][-size:]
            enough = trouble and len(latest) == size and Counter(latest)[trouble.cause] >= 0.8 * size
            assert effect is (Effect.OPENED if enough else Effect.NONE)
            known, latest = ({trouble.cause}, []) if enough else (None, latest)
        elif trouble is None:
            assert effect is Effect.CLOSED
            known = None
        else:
            assert effect is (Effect.HELD if trouble.cause in known else Effect.CHANGED)
            known = known | {trouble.cause}
        assert (known is not None) == made.is_open
        assert (known is not None) == (0 < made.seconds_to_probe(now) <= 60)


@given(st.text(), st.text())
def test_cause_can_be_made_of_any_words(text, name):
    """
    No message and no name of a file is too strange to be compared.
    """
    assert trouble_of(RuntimeError(text), names=(name,)).cause.startswith("UNKNOWN")
