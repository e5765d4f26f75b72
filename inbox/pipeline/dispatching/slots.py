"""
What each worker process has in hand, kept where it survives the process.

A file on the volume, mapped into supervisor and workers: after SIGKILL of a worker the supervisor reads it, after
SIGKILL of the whole service the next one on this machine does. One slot per worker: lease token, `doc_id`, and when
the attempt began on the monotonic clock, which all processes of a boot share.

A file stays in its slot until its outcome is recorded or the next one takes the slot: what a handler did to its process
may show only after it has returned, and a file that nobody is charged for would be tried for ever.
"""

import math
import mmap
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inbox.domain import InHand

_SLOT: Final = struct.Struct("<64s32sd")
_DOC_ID_BYTES: Final = 64
_STARTED_AT: Final = 96
_NO_LIMIT: Final = struct.pack("<d", math.inf)
SLOT_BYTES: Final = 128


class Slots:
    """The slots of one service instance."""

    def __init__(self, path: Path, *, count: int | None = None) -> None:
        """Open the slot file; with `count`, make it anew with so many empty slots."""
        if count is not None:
            path.write_bytes(bytes(SLOT_BYTES * count))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._map) // SLOT_BYTES

    def take(self, slot: int, token: str, doc_id: str, started_monotonic: float) -> None:
        """
        Note that this worker begins an attempt now.

        The `doc_id` is written last, and taken away first: whoever reads in between, or finds what a kill in between
        left, sees an empty slot and not one file with the time of another.
        """
        at = slot * SLOT_BYTES
        packed = _SLOT.pack(doc_id.encode(), token.encode(), started_monotonic)
        self._map[at + _DOC_ID_BYTES : at + _SLOT.size] = packed[_DOC_ID_BYTES:]
        self._map[at : at + _DOC_ID_BYTES] = packed[:_DOC_ID_BYTES]

    def stop_clock(self, slot: int) -> None:
        """Note that the handler has returned, and that only recording is left: no time limit counts any more."""
        at = slot * SLOT_BYTES + _STARTED_AT
        self._map[at : at + 8] = _NO_LIMIT

    def put_down(self, slot: int) -> None:
        """Note that this worker has nothing in hand."""
        at = slot * SLOT_BYTES
        self._map[at : at + _DOC_ID_BYTES] = bytes(_DOC_ID_BYTES)

    def read(self, slot: int) -> InHand | None:
        """Return what this worker has in hand, or None."""
        doc_id, token, started = _SLOT.unpack_from(self._map, slot * SLOT_BYTES)
        if not doc_id.strip(b"\0"):
            return None
        return InHand(_text(token), _text(doc_id), started)

    def read_all(self) -> list[InHand]:
        return [hand for slot in range(len(self)) if (hand := self.read(slot)) is not None]

    def close(self) -> None:
        self._map.close()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")
