"""
Whole pages of rows in one statement.

A page is one JSON parameter that the database unfolds into a table: `jsonb_to_recordset` on PostgreSQL, which measured
close to COPY, and `json_each` on SQLite, which measured close to a prepared statement run per row. Nothing in the
program is done per row and column, and no driver's own code is needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import JSON, Column, ColumnElement, FromClause, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from inbox.database.types import UtcDateTime, encode_json

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
PAGE_ROWS: Final = 1000
_ROWS: Final = "rows"
_TIME_CHARS: Final = len("2026-01-01 12:00:00.000000")


def in_pages(items: Iterable[T], size: int = PAGE_ROWS) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`."""
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page


def is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def as_recordset(columns: Sequence[Column[Any]], *, postgresql: bool) -> FromClause:
    """Return a table expression `r` over the list of dicts bound to `rows`; what a dict leaves out is NULL."""
    if postgresql:
        function = func.jsonb_to_recordset(bindparam(_ROWS, type_=JSONB))
        named = [column(item.name, item.type) for item in columns]
        return function.table_valued(*named).render_derived(name="r", with_types=True)
    row = func.json_each(bindparam(_ROWS, type_=JSON)).table_valued("value", name="row").c.value
    return select(*(_extracted(row, item).label(item.name) for item in columns)).subquery("r")


def _extracted(row: ColumnElement[Any], item: Column[Any]) -> ColumnElement[Any]:
    """Take a value out of a row the way SQLite keeps it: times without zone."""
    value = func.json_extract(row, f"$.{item.name}")
    return func.substr(value, 1, _TIME_CHARS) if isinstance(item.type, UtcDateTime) else value


def as_page(
    rows: Iterable[dict[str, Any]], columns: Iterable[Column[Any]], *, postgresql: bool
) -> list[dict[str, Any]]:
    """
    Return rows as `as_recordset` wants them, in the same dicts.

    SQLite keeps JSON as text, and gets it as text: taken out of a larger document, true would be 1 and a float rounded.
    """
    page = list(rows)
    if not postgresql:
        for name in [item.name for item in columns if isinstance(item.type, JSON)]:
            for row in page:
                if row.get(name) is not None:
                    row[name] = encode_json(row[name])
    return page
