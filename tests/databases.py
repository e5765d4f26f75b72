"""What tests do with a database: connect to it, and put a batch with files into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from inbox.database.batches import lease_batch, receive_batch
from inbox.database.connection import Sessions, close, create_engine, get_session, get_session_factory
from inbox.database.operations import get_or_create_file_extractions
from inbox.database.runs import begin_processing
from inbox.domain import BatchLease, Drop, DropIdentity

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LIFE = timedelta(seconds=60)


def migrate(url: str) -> None:
    """Bring the database behind `url` up to the newest schema, the way the service does at start."""
    from inbox.database.connection import create_engine  # only tests that use a schema need the whole of it
    from inbox.database.migrating import upgrade

    engine = create_engine(SimpleNamespace(database_url=url, database_max_connections=1, database_timeout=30.0))
    try:
        upgrade(engine)
    finally:
        engine.dispose()


@contextmanager
def connected(url: str, *, connections: int = 10, timeout: float = 30.0) -> Iterator[Sessions]:
    """Yield sessions on an engine of its own, which operations without a session use too."""
    engine = create_engine(
        SimpleNamespace(database_url=url, database_max_connections=connections, database_timeout=timeout)
    )
    try:
        yield Sessions(get_session_factory(engine))
    finally:
        close(engine)


def a_drop(name: str = "drop.zip", *, inode: int = 1, size: int = 10, path=None) -> Drop:
    return Drop(name, path, DropIdentity(1, inode, size, 1), 0.0)


def make_batch(batch_id: str, *, now: datetime = NOW, name: str = "drop.zip") -> None:
    """Put a received batch into the database."""
    with get_session() as session:
        receive_batch(batch_id, a_drop(name), f"uploads/{name}", run_id=f"run-{batch_id}", now=now, session=session)


def lease_it(batch_id: str, *, owner: str = "worker", now: datetime = NOW, life: timedelta = LIFE) -> BatchLease | None:
    with get_session() as session:
        return lease_batch(batch_id, owner, now=now, life=life, session=session)


def fill_batch(batch_id: str, files: int, *, now: datetime = NOW, skipped: int = 0) -> list[str]:
    """Put a batch in processing with so many pending files into the database; returns their doc_ids in order."""
    make_batch(batch_id, now=now)
    lease = lease_it(batch_id, now=now)
    rows = [
        {
            "doc_id": f"{batch_id}-{number:05}",
            "batch_id": batch_id,
            "run_id": f"run-{batch_id}",
            "position": number,
            "member_path": f"folder/{number}.txt",
            "file_type": "text",
            "size_bytes": 10,
            "due_at": now,
        }
        for number in range(files + skipped)
    ]
    for row in rows[files:]:
        row |= {"status": "skipped", "skip_reason": "JUNK", "processing_completed_at": now}
    with get_session() as session:
        get_or_create_file_extractions(rows, session=session)
        begin_processing(
            lease, run_id=f"run-{batch_id}", members=files + skipped, directories=0, now=now, session=session
        )
    return [row["doc_id"] for row in rows]
