"""Column types that mean the same on SQLite and PostgreSQL."""

import json
import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

JsonType = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """
    An aware time in UTC. SQLite keeps it without zone, so that text order is time order.

    Raises ValueError when a naive time is bound.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = _in_utc(value)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"a time without zone cannot be stored: {moment!r}")
    return moment.astimezone(UTC)


def encode_json(value: Any) -> str:
    """
    Return compact JSON, in which a time is its text in UTC and an id its digits, as pages of rows have them.

    Raises ValueError for what JSON cannot express, NaN and infinities among it, and for a time without zone.
    """
    return _json(value)


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return _in_utc(value).isoformat(" ", "microseconds")
    if isinstance(value, uuid.UUID):
        return value.hex
    raise ValueError(f"JSON cannot express a {type(value).__name__}")  # like NaN: that value is refused, no other


_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_as_text).encode


def new_id() -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562): ordered by time, so that new rows land next to each other."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)
