"""The last leg, from the database to receipts and resting places: summarising, reporting."""

from collections.abc import Collection
from dataclasses import dataclass

from inbox import events
from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError, WorkerError
from inbox.database import batches
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.events import Emit
from inbox.lifecycle import BatchState
from inbox.pipeline.claiming import LockedOut, locked
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.summarising import Summariser
from inbox.utils.volume import Volume


@dataclass
class Closing:
    """From the database to receipts and resting places: summarising, reporting."""

    volume: Volume
    summariser: Summariser
    reporter: Reporter
    emit: Emit
    locked_out: LockedOut

    def round(self) -> None:
        """Close what is finished, then report what is closed; also what a crash left unreported."""
        for batch_id in self.summariser.find_finished():
            closed = self.summariser.close(batch_id)
            if closed is not None:
                counts = {name: closed.counts[name] for name in ("members", "files", "skipped", "succeeded", "failed")}
                self.emit(
                    events.BatchClosed(
                        batch_id=batch_id,
                        drop=closed.batch.drop_name,
                        run_id=closed.batch.run_id,
                        state=str(closed.state),
                        seconds=round(closed.seconds, 3),
                        **counts,
                    )
                )
        self._report(self.reporter.find_unreported())

    def _report(self, unreported: Collection[BatchRecord]) -> None:
        """Report what is closed. One that cannot be reported holds up no other; its error comes out in the end."""
        self.locked_out.forget_all_but([batch.batch_id for batch in unreported])
        met: Exception | None = None
        for batch in unreported:
            self.volume.require()
            try:
                self._report_one(batch)
            except (DatabaseUnavailableError, DatabaseRefusedError):
                raise
            except (WorkerError, OSError) as error:
                met = met or error
        if met is not None:
            raise met

    def _report_one(self, batch: BatchRecord) -> None:
        with locked(self.volume.locks, batch.batch_id) as is_ours:
            if is_ours or self.locked_out.is_over(batch.batch_id):
                reported = self.reporter.report(batch)
                self.emit(
                    events.BatchReported(
                        batch.batch_id, batch.drop_name, str(batch.state), reported.receipt, reported.archive
                    )
                )


def is_everything_done(sessions: Sessions) -> bool:
    """Say whether no batch is open: nothing to extract, to work on, to close or to report."""
    with sessions.reading() as session:
        return not batches.find_open_batches(list(BatchState), session=session)
