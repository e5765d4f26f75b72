"""Members get their rows: atomic get-or-create, a page at a time."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Executable, select, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from inbox.database import turns
from inbox.database.models import FILES
from inbox.database.pages import as_page, as_recordset, in_pages, is_postgresql
from inbox.database.types import new_id
from inbox.lifecycle import FileState

_DEFAULTS: Final[Mapping[str, Any]] = {
    "status": FileState.PENDING,
    "file_type": "unknown",
    "position": 0,
    "size_bytes": 0,
    "retry_count": 0,
}


def get_or_create_files(rows: Sequence[Mapping[str, Any]], *, session: Session) -> set[str]:
    """
    Make sure that every row's `doc_id` exists, and return the doc_ids that are new.

    Atomic under concurrency: of several registrars of one doc_id exactly one creates it. Rows that exist are left as
    they are. Pending files get the turns from `next_turn` on, unless a row names its own. Rows go in one order, whoever
    brings them, since two registrars with overlapping pages would otherwise deadlock; and in the archive's, since files
    that are claimed together should lie together. Raises ValueError for a value that has no column.
    """
    complete = [{**_DEFAULTS, "id": new_id(), **row} for row in rows]
    complete.sort(key=itemgetter("position", "doc_id"))
    _give_turns(complete, session)
    statement = _insertion(frozenset(name for row in complete for name in row), is_postgresql(session))
    connection = session.connection()
    created: set[str] = set()
    for rows_of_page in in_pages(complete):
        page = as_page(rows_of_page, FILES.c, postgresql=is_postgresql(session))
        created.update(connection.scalars(statement, {"rows": page}))
    return created


def _give_turns(rows: Iterable[dict[str, Any]], session: Session) -> None:
    without = [row for row in rows if row["status"] == FileState.PENDING and "turn" not in row]
    if without:
        for turn, row in enumerate(without, turns.next_turn(session)):
            row["turn"] = turn


@lru_cache(maxsize=32)
def _insertion(names: frozenset[str], on_postgresql: bool) -> Executable:
    if unknown := names - set(FILES.c.keys()):
        raise ValueError(f"a file has no {', '.join(sorted(unknown))}")
    columns = [FILES.c[name] for name in sorted(names)]
    source = as_recordset(columns, postgresql=on_postgresql)
    insert: Any = postgresql.insert if on_postgresql else sqlite.insert
    statement: Executable = (
        insert(FILES)
        .from_select([item.name for item in columns], select(source).where(true()))
        .on_conflict_do_nothing(index_elements=[FILES.c.doc_id])
        .returning(FILES.c.doc_id)
    )
    return statement
