"""What a handler returned, made safe for both databases."""

import json
import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import PurePosixPath
from uuid import UUID

import pytest
from databases import connected
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import text

from inbox.core.errors import PermanentError
from inbox.handlers import results
from inbox.handlers.results import MAX_DEPTH, clean_result, clean_text


@dataclass
class Point:
    x: int
    y: float


class Model(BaseModel):
    name: str
    point: tuple[int, int]


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


KEPT = [
    (None, None),
    (True, True),
    (7, 7),
    (1.5, 1.5),
    ("größe", "größe"),
    ([1, (2, 3)], [1, [2, 3]]),
    ({"a": {"b": None}}, {"a": {"b": None}}),
    ("a\0b", "a\ufffdb"),
    ("\ud800x", "\ufffdx"),
    (math.nan, None),
    (math.inf, None),
    (2**63, str(2**63)),
    (-(2**63) + 1, -(2**63) + 1),
    ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    ({"b", 1, None}, ["b", 1, None]),
    (deque([1]), [1]),
    (OrderedDict(a=1), {"a": 1}),
    (date(2026, 1, 2), "2026-01-02"),
    (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    (timedelta(hours=1), "1:00:00"),
    (Decimal("1.10"), "1.10"),
    (Fraction(1, 2), 0.5),
    (UUID(int=1), str(UUID(int=1))),
    (PurePosixPath("/a"), "/a"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Point(1, 2.0), {"x": 1, "y": 2.0}),
    (Model(name="n", point=(1, 2)), {"name": "n", "point": [1, 2]}),
]


@pytest.mark.parametrize(("value", "kept"), KEPT, ids=lambda value: type(value).__name__)
def test_value_becomes_what_json_can_hold(value, kept):
    """
    Every usual value has its form in JSON, and what no database stores is replaced.
    """
    assert kept == clean_result(value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b"bytes", "$"),
        ({"pages": [{"image": b"x"}]}, "$.pages[0].image"),
        ({"odd key": object()}, '$["odd key"]'),
        ({(1, 2): "x"}, "$"),
        ({"1": "a", 1: "b"}, "$"),
        (lambda: None, "$"),
        (Point, "$"),
    ],
)
def test_place_of_what_json_cannot_hold_is_named(value, place):
    """
    Anything else is a permanent error of the handler that names its place in the result.
    """
    with pytest.raises(PermanentError) as refused:
        clean_result(value)

    assert (place, "RESULT_NOT_JSON") == (refused.value.subject, refused.value.reason_code)


def test_integer_without_end_is_refused():
    """
    An integer that Python itself declines to print is an error with its place, not a crash.
    """
    with pytest.raises(PermanentError) as refused:
        clean_result({"n": [10**5000]})

    assert "$.n[0]" == refused.value.subject


def test_endless_nesting_is_refused():
    """
    A result nested in itself, or too deep, ends in an error and not in a crash.
    """
    own = []
    own.append(own)
    deep = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"d": deep}

    for value in (own, deep):
        with pytest.raises(PermanentError, match="nested"):
            clean_result(value)


def test_size_has_a_limit(monkeypatch):
    """
    A result past the limit is refused with the advice to write a file.
    """
    monkeypatch.setattr(results, "MAX_RESULT_CHARS", 100)

    assert {"a": ["x" * 80]} == clean_result({"a": ["x" * 80]})
    with pytest.raises(PermanentError) as refused:
        clean_result({"a": ["ü" * 50, 1, {"b": "x" * 50}]})
    assert "RESULT_TOO_LARGE" == refused.value.reason_code


def test_text_without_trouble_is_the_same_object():
    """
    Text that is fine is not copied.
    """
    fine = "fine"

    assert fine is clean_text(fine)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.dates() | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=anything)
def test_both_databases_keep_what_comes_out(database_url, value):
    """
    Whatever a handler returns, what is made of it is accepted by the real database and comes back the same.
    """
    try:
        cleaned = clean_result(value)
    except PermanentError:  # two keys became the same
        return
    is_postgresql = database_url.startswith("postgresql")
    column = "CAST(:value AS jsonb)" if is_postgresql else "json(:value)"
    with connected(database_url, connections=1) as sessions, sessions.writing() as session:
        kept = session.execute(text(f"SELECT {column}"), {"value": json.dumps(cleaned)}).scalar_one()

    assert _same(cleaned, kept if is_postgresql else json.loads(kept))


def _same(one, other):
    """Compare numbers as numbers: PostgreSQL writes big ones without an exponent, so they are read as integers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == (float(other) if isinstance(one, float) else other)
