"""
What a handler returned, made safe for PostgreSQL's jsonb and SQLite's JSON.

Both refuse, or quietly change, things that Python's own `json` writes without complaint: jsonb has no NUL, no lone
surrogates and no NaN, and SQLite reads integers beyond 64 bits as floats and loses their last digits.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from inbox.core.errors import PermanentError

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MAX_DEPTH: Final = 100
MAX_RESULT_CHARS: Final = 64 * 1024**2  # jsonb itself stops at 256 MiB, and a row that size helps nobody

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
_MAX_INTEGER: Final = 2**63 - 1
_SCALAR_CHARS: Final = 8
_PLAIN_KEY: Final = re.compile(r"[^\W\d]\w*")


def clean_result(value: object) -> JsonValue:
    """
    Return the value as JSON can hold it and both databases keep it.

    NUL and lone surrogates become U+FFFD; NaN and infinities None; keys, dates, UUIDs, paths, decimals and integers
    beyond 64 bits strings; tuples and sets lists (sets sorted); an enum its value; dataclasses and models dicts. Raises
    PermanentError (`RESULT_NOT_JSON`) that names the place of anything else, of bytes, and of a nesting below 100, or
    `RESULT_TOO_LARGE` beyond 64 Mi characters.
    """
    try:
        cleaned = _clean(value, 0)
    except _NotJsonError as error:
        raise PermanentError(
            error.reason,
            subject=f"${''.join(reversed(error.steps))}",
            hint="return None, booleans, numbers, strings, lists and dicts",
            reason_code="RESULT_NOT_JSON",
        ) from None
    if _chars_of(cleaned) > MAX_RESULT_CHARS:
        raise PermanentError(
            f"The handler's result is longer than {MAX_RESULT_CHARS:,} characters",
            hint="write it to a file and return its path",
            reason_code="RESULT_TOO_LARGE",
        )
    return cleaned


def clean_text(text: str) -> str:
    """Return the text without what no database stores; U+FFFD stands in its place."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def _chars_of(value: JsonValue) -> int:
    """Return about how long the value is as JSON text."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _chars_of(item) for key, item in value.items())
    return sum(map(_chars_of, value)) if isinstance(value, list) else _SCALAR_CHARS


class _NotJsonError(Exception):
    """Carries the way back up to the root, innermost step first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []


def _clean(value: object, depth: int) -> JsonValue:
    """Handle the usual types at once, by exact type; relatives and rarities go the long way."""
    if value is None or value is True or value is False:
        return value
    exact = _BY_TYPE.get(type(value))
    if exact is not None:
        return exact(value, depth)
    for kinds, clean in _BY_KIND:
        if isinstance(value, kinds):
            return clean(value, depth)
    return _clean_model(value, depth)


def _clean_model(value: object, depth: int) -> JsonValue:
    if is_dataclass(value) and not isinstance(value, type):
        return _clean_mapping({field.name: getattr(value, field.name) for field in fields(value)}, depth)
    dump = getattr(value, "model_dump", None)  # pydantic, without importing it
    if callable(dump) and not isinstance(value, type):
        return _clean(dump(), depth + 1)
    raise _NotJsonError(f"The handler's result holds a {type(value).__qualname__}, which JSON cannot express")


def _clean_mapping(value: Mapping[object, object], depth: int) -> JsonValue:
    _check_depth(depth)
    cleaned: dict[str, JsonValue] = {}
    for key, item in value.items():
        name = clean_text(key) if type(key) is str else _clean_key(key)
        if name in cleaned:
            raise _NotJsonError(f"Two keys of the handler's result become the same, {name!r}")
        try:
            cleaned[name] = _clean(item, depth + 1)
        except _NotJsonError as error:
            error.steps.append(f".{name}" if _PLAIN_KEY.fullmatch(name) else f"[{json.dumps(name)}]")
            raise
    return cleaned


def _clean_items(value: Iterable[object], depth: int) -> JsonValue:
    _check_depth(depth)
    cleaned: list[JsonValue] = []
    for index, item in enumerate(value):
        try:
            cleaned.append(_clean(item, depth + 1))
        except _NotJsonError as error:
            error.steps.append(f"[{index}]")
            raise
    return cleaned


def _clean_set(value: Iterable[object], depth: int) -> JsonValue:
    """Sort, so that the same result is the same text; what has no order of its own is sorted by how it is written."""
    items = list(value)
    try:
        return _clean_items(sorted(items), depth)  # type: ignore[type-var]
    except TypeError:
        return _clean_items(sorted(items, key=repr), depth)


def _clean_key(key: object) -> str:
    plain = _clean(key, 0)
    if isinstance(plain, dict | list):
        raise _NotJsonError(f"The handler's result has a {type(key).__qualname__} as key, which JSON cannot express")
    return plain if isinstance(plain, str) else json.dumps(plain)


def _clean_integer(value: Integral, _depth: int) -> JsonValue:
    number = int(value)
    if abs(number) <= _MAX_INTEGER:
        return number
    try:
        return str(number)
    except ValueError:  # Python's own limit on digits
        raise _NotJsonError("The handler's result holds an integer of more than 4300 digits") from None


def _clean_real(value: Real, _depth: int) -> JsonValue:
    number = float(value)
    return number if math.isfinite(number) else None


def _refuse_bytes(value: object, _depth: int) -> JsonValue:
    raise _NotJsonError(
        f"The handler's result holds {type(value).__name__}; decode it, or store it and return the path"
    )


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _NotJsonError(f"The handler's result is nested deeper than {MAX_DEPTH} levels, or in itself")


_Cleaner = Callable[[Any, int], JsonValue]

_BY_TYPE: Final[dict[type, _Cleaner]] = {
    str: lambda value, _: clean_text(value),
    int: _clean_integer,
    float: _clean_real,
    dict: _clean_mapping,
    list: _clean_items,
    tuple: _clean_items,
}
_BY_KIND: Final[tuple[tuple[type | tuple[type, ...], _Cleaner], ...]] = (
    (Enum, lambda value, depth: _clean(value.value, depth)),  # before str and int, which an enum may be too
    (str, lambda value, _: clean_text(str(value))),
    ((bytes, bytearray, memoryview), _refuse_bytes),
    ((date, time), lambda value, _: value.isoformat()),
    ((Decimal, PurePath, UUID, timedelta), lambda value, _: clean_text(str(value))),
    (Integral, _clean_integer),
    (Real, _clean_real),
    (Mapping, _clean_mapping),
    ((set, frozenset), _clean_set),
    (Sequence, _clean_items),
)
