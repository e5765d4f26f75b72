"""Reoffering: files that failed under another version of their handler are tried again, once for each version."""

import uuid
from collections.abc import Callable, Mapping

from inbox import events
from inbox.database import runs
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.work import claimed_of
from inbox.domain import ClaimedFile
from inbox.events import Emit
from inbox.utils.clock import Clock

HandlerOf = Callable[[ClaimedFile], tuple[str | None, str | None]]
"""Given a file, name and version of the handler that would get it now; None when nobody would."""


class Reoffering:
    """Opens new runs, as an operator's retry does, over what another version may have mended."""

    def __init__(
        self, sessions: Sessions, clock: Clock, emit: Emit, *, versions: Mapping[str, str], handler_of: HandlerOf
    ) -> None:
        """`versions` are those of the present handlers, by their names."""
        self._sessions = sessions
        self._clock = clock
        self._emit = emit
        self._versions = versions
        self._handler_of = handler_of

    def reoffer(self) -> None:
        """
        Open a run in each batch that is over and has such files; of several services that do so, one opens it.

        A file whose failure bears no version, as one whose batch ran out of its time, is left to the operator, and so
        is one that another handler would get now. May be called again after an error: what was opened is not again.
        """
        with self._sessions.reading() as session:
            found = runs.find_failed_under_another(self._versions, session=session)
        opened = {batch_id: files for batch_id in found if (files := self._open_run(batch_id))}
        if opened:
            self._emit(events.FilesReoffered(len(opened), sum(opened.values())))

    @retry_when_busy
    def _open_run(self, batch_id: str) -> int:
        with self._sessions.reading() as session:
            doc_ids = [
                file.doc_id
                for file in runs.iterate_failed_under_another(batch_id, self._versions, session=session)
                if self._would_differ(file.handler, file.handler_version, claimed_of(file))
            ]
        if not doc_ids:
            return 0
        with self._sessions.writing() as session:
            return runs.open_run(
                batch_id,
                uuid.uuid4().hex,
                now=self._clock.now(),
                session=session,
                doc_ids=doc_ids,
                versions=self._versions,
            )

    def _would_differ(self, handler: str | None, version: str | None, claimed: ClaimedFile) -> bool:
        """Say whether the file would go to the same handler in another version."""
        now, version_now = self._handler_of(claimed)
        return (now, True) == (handler, version_now != version)
