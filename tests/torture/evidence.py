"""What there is at the end: rows, files, receipts, archives, calls and log lines, read into the ledger as tables."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from database import Database, nanoseconds_of
from ledger import doc_id

TABLES: Final = """
PRAGMA cache_size = -200000;
DROP TABLE IF EXISTS jobs; DROP TABLE IF EXISTS rows; DROP TABLE IF EXISTS calls; DROP TABLE IF EXISTS published;
DROP TABLE IF EXISTS receipts; DROP TABLE IF EXISTS archives; DROP TABLE IF EXISTS left_over;
CREATE TABLE jobs (
    content TEXT PRIMARY KEY, drop_name TEXT, status TEXT, reason TEXT, attempts INT, members INT, reported INT);
CREATE TABLE rows (
    doc_id TEXT PRIMARY KEY, content TEXT, path TEXT, status TEXT, error TEXT, skip TEXT, size INT, sha256 TEXT,
    attempts INT, completed_ns INT, file_path TEXT) WITHOUT ROWID;
CREATE TABLE calls (doc_id TEXT, attempt INT, process TEXT, begun_ns INT, ended_ns INT, how TEXT);
CREATE TABLE published (doc_id TEXT PRIMARY KEY, file_path TEXT, sha256 TEXT) WITHOUT ROWID;
CREATE TABLE receipts (
    file TEXT PRIMARY KEY, drop_name TEXT, content TEXT, state TEXT, members INT, files INT, skipped INT,
    succeeded INT, failed INT, unfinished INT, entries INT);
CREATE TABLE archives (folder TEXT, name TEXT, sha256 TEXT);
CREATE TABLE left_over (what TEXT, name TEXT);
"""
INDEXES: Final = (
    ("calls", "doc_id"), ("calls", "process"), ("rows", "content"), ("members", "content"), ("victims", "process"),
    ("drops", "name"), ("drops", "content"), ("archives", "sha256"), ("receipts", "content"),
)  # fmt: skip
LITTER: Final = {
    "an unpacking": ("extracted/.staging", "*"),
    "a lock": (".inbox/locks", "*"),
    "a mark of an instance": (".inbox/instances", "*"),
    "a draft": (".inbox/drafts", "*"),
}


def gather(db: sqlite3.Connection, database: Database, base: Path, folder: Path) -> None:
    """Read everything. Raises OSError when the database does not answer."""
    db.executescript(TABLES)
    db.execute("BEGIN")
    _fill(db, "jobs", _jobs(database))
    _fill(db, "rows", _rows(database))
    _fill(db, "calls", calls_of(folder / "journal"))
    _fill(db, "published", _published(base))
    _fill(db, "receipts", _receipts(base / "receipts"))
    _fill(db, "archives", _archives(base))
    _fill(db, "left_over", _left_over(database, base))
    for table, column in INDEXES:
        db.execute(f"CREATE INDEX IF NOT EXISTS {table}_by_{column} ON {table} ({column})")
    db.execute("COMMIT")
    db.execute("ANALYZE")


def _fill(db: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    columns = len(db.execute(f"PRAGMA table_info({table})").fetchall())
    db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", rows)


def _jobs(database: Database) -> Iterator[tuple[Any, ...]]:
    yield from database.rows(
        "SELECT batch_id, drop_name, status, reason_code, attempt_count, total_files,"
        " CASE WHEN reported_at IS NULL THEN 0 ELSE 1 END FROM processing_jobs"
    )


def _rows(database: Database) -> Iterator[tuple[Any, ...]]:
    completed = database.nanoseconds("processing_completed_at")
    query = (
        "SELECT doc_id, batch_id, member_path, status, error_type, skip_reason, size_bytes, content_sha256,"
        f" retry_count + 1, {completed}, file_path FROM file_extractions"
    )
    for *values, completed_at, file_path in database.rows(query):
        yield (*values, nanoseconds_of(completed_at), file_path)


def calls_of(journal: Path) -> Iterator[tuple[str, int, str, int, int | None, str]]:
    """Yield every call of the handler; one that never ended has no end."""
    open_calls: dict[str, tuple[str, int, str, int]] = {}
    with journal.open() as lines:
        for line in lines:
            what, doc_id, attempt, process, at, *how = line.split()
            begun = open_calls.pop(process, None)
            if what == "E":
                yield (*begun, int(at), how[0])
                continue
            if begun:  # a process that goes on has ended its call; it has one id for as long as it lives
                yield (*begun, None, "")
            open_calls[process] = (doc_id, int(attempt), process, int(at))
    for begun in open_calls.values():
        yield (*begun, None, "")


def _published(base: Path) -> Iterator[tuple[str, str, str]]:
    """Yield every published file, with the identity that its place gives it."""
    for folder, _, names in os.walk(base / "extracted"):
        for name in names:
            path = Path(folder, name).relative_to(base)
            _, content, *member = path.parts
            if content != ".staging":
                yield doc_id(content, "/".join(member)), str(path), sha256_of(base / path)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receipts(folder: Path) -> Iterator[tuple[Any, ...]]:
    for path in folder.iterdir():
        told: dict[str, Any] = {}
        with suppress(ValueError):
            told = json.loads(path.read_text())
        names = ("drop", "batch_id", "state", "members", "files", "skipped", "succeeded", "failed", "unfinished")
        yield (path.name, *(told.get(name) for name in names), len(told.get("entries", ())))


def _archives(base: Path) -> Iterator[tuple[str, str, str]]:
    for folder in ("uploads", "processed", "quarantine"):
        for path in (base / folder).iterdir():
            yield folder, path.name, sha256_of(path)


def _left_over(database: Database, base: Path) -> Iterator[tuple[str, str]]:
    for what, (folder, pattern) in LITTER.items():
        for path in (base / folder).glob(pattern):
            yield what, path.name
    for (owner,) in database.rows("SELECT owner FROM leases"):
        yield "a lease", owner
