"""
Whole pages of rows in one statement.

PostgreSQL receives a page as one JSON parameter and unfolds it with `jsonb_to_recordset`, which measured close to COPY
and needs no driver-specific code. SQLite runs one prepared statement over the page.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, FromClause, bindparam, column, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session

T = TypeVar("T")
PAGE_ROWS: Final = 1000


def in_pages(items: Iterable[T], size: int = PAGE_ROWS) -> Iterator[list[T]]:
    """Yield the items in lists of at most `size`."""
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page


def is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def as_recordset(columns: Sequence[InstrumentedAttribute[Any]], parameter: str = "rows") -> FromClause:
    """Return a table expression `r` over the JSON array bound to `parameter`, with the columns' own types."""
    function = func.jsonb_to_recordset(bindparam(parameter, type_=JSONB))
    named = [column(attribute.key, attribute.type) for attribute in columns]
    return function.table_valued(*named).render_derived(name="r", with_types=True)


def column_of(table: FromClause, attribute: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    return table.c[attribute.key]
