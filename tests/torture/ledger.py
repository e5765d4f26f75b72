"""
What was dropped and what was done, kept in an SQLite file beside the volume: the expectation of the audit.

It is written when a drop is made, by whoever made it, and never read from what inbox says. On disk, since an hour of it
has millions of members.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from contents import Content

SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS contents (
    content TEXT PRIMARY KEY, verdict TEXT NOT NULL, reason TEXT, members INT NOT NULL);
CREATE TABLE IF NOT EXISTS drops (name TEXT, content TEXT, fate TEXT);
CREATE TABLE IF NOT EXISTS members (
    doc_id TEXT PRIMARY KEY, content TEXT, path TEXT, does TEXT, size INT, sha256 TEXT, skip TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS victims (process TEXT, fault TEXT, at_ns INT);
"""

GONE: Final = "gone"
"""Taken by inbox: the drop has to leave the uploads."""
WITHDRAWN: Final = "withdrawn"
"""Taken away by its dropper, perhaps in time."""
LEFT: Final = "left"
"""No archive, or none that is whole: it stays where it is."""


def doc_id(content: str, path: str) -> str:
    """Return the documented identity of a member: the first half of SHA-256 over batch id, NUL and path."""
    return hashlib.sha256(f"{content}\0{path}".encode()).hexdigest()[:32]


class Ledger:
    """The expectation. One writer."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript(SCHEMA)

    def note_content(self, content: Content) -> None:
        known = self.db.execute(
            "INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?)",
            (content.id, content.verdict, content.reason, len(content.members)),
        )
        if known.rowcount:
            self.db.execute("BEGIN")
            self.db.executemany(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (doc_id(content.id, one.path), content.id, one.path, one.does, one.size, one.sha256, one.skip)
                    for one in content.members
                ),
            )
            self.db.execute("COMMIT")

    def note_drop(self, name: str, content: Content, fate: str) -> None:
        self.db.execute("INSERT INTO drops VALUES (?, ?, ?)", (name, content.id, fate))

    def note_victims(self, processes: Iterable[str], fault: str) -> None:
        """Note who was harmed: a service, such as `r1.4`, with all its processes, or one of them, `r1.4/8911`."""
        now = time.time_ns()
        self.db.executemany("INSERT INTO victims VALUES (?, ?, ?)", [(one, fault, now) for one in processes])

    def names_left(self) -> set[str]:
        """Return the drops that are meant to stay in the uploads."""
        return {name for (name,) in self.db.execute("SELECT name FROM drops WHERE fate = ?", (LEFT,))}

    def close(self) -> None:
        self.db.close()
