"""Forgetting: batches that will not get any members, with what attempts that died left of them on the volume."""

from collections.abc import Callable, Iterator
from functools import partial

from inbox.database import batches
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions, retry_when_busy
from inbox.domain import BatchLease
from inbox.lifecycle import BatchState
from inbox.utils.remnants import unpublish
from inbox.utils.volume import Volume


def forget_held(lease: BatchLease, sessions: Sessions, volume: Volume, *, still_held: Callable[[], bool]) -> bool:
    """Forget a batch that is ours to extract and turned out not to be whole; False when the lease was lost."""
    return unpublish(volume, lease.batch_id, lease.token, is_idle=still_held) and _delete(
        lease.batch_id, lease.token, sessions
    )


def forget_vanished(
    sessions: Sessions, volume: Volume, is_gone: Callable[[BatchRecord], bool]
) -> Iterator[BatchRecord]:
    """Forget received batches whose drop was taken away before its members had rows. Raises StorageError."""
    with sessions.reading() as session:
        waiting = batches.find_open_batches([BatchState.RECEIVED], session=session)
    for batch in waiting:
        if (
            is_gone(batch)
            and unpublish(volume, batch.batch_id, batch.run_id, is_idle=partial(_waits, batch, sessions))
            and _delete(batch.batch_id, None, sessions)
        ):
            yield batch


def _waits(batch: BatchRecord, sessions: Sessions) -> bool:
    with sessions.reading() as session:
        present = batches.find_batches([batch.batch_id], session=session).get(batch.batch_id)
    return present is not None and present.state is BatchState.RECEIVED


@retry_when_busy
def _delete(batch_id: str, token: str | None, sessions: Sessions) -> bool:
    with sessions.writing() as session:
        return batches.forget_batch(batch_id, token=token, session=session)
