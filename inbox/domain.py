"""The frozen nouns that travel down the pipeline."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NewType

from inbox.lifecycle import FileState

DocId = NewType("DocId", str)

SHORT_ID_CHARS: Final = 12


def derive_doc_id(batch_id: str, member_path: str) -> DocId:
    """
    Return the stable identity of one member of one batch: 32 hexadecimal characters.

    It is the first half of SHA-256 over batch id, NUL and member path, so the same content dropped again, on any
    machine, gives the same `doc_id`. Handlers may use it as their idempotency key.
    """
    digest = hashlib.sha256(f"{batch_id}\0{member_path}".encode("utf-8", "surrogatepass"))
    return DocId(digest.hexdigest()[:32])


def short_id(identity: str) -> str:
    """Return the part of a batch id that people read and receipts carry in their names."""
    return identity[:SHORT_ID_CHARS]


@dataclass(frozen=True, slots=True)
class DropIdentity:
    """What tells one content of a path from the next: if any of these differs, it is another drop."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    def is_same_file(self, other: "DropIdentity") -> bool:
        """Compare all but the device, whose number may change with every mount."""
        return (self.inode, self.size_bytes, self.modified_ns) == (other.inode, other.size_bytes, other.modified_ns)


@dataclass(frozen=True, slots=True)
class Drop:
    """A file somebody put into `uploads/`. `changed_at` is its latest change of content or metadata (Unix seconds)."""

    name: str
    path: Path
    identity: DropIdentity
    changed_at: float


@dataclass(frozen=True, slots=True)
class MemberFile:
    """A member that was written: its path inside the archive, `/`-separated, and what was found out while writing."""

    path: str
    size_bytes: int
    sha256: str
    position: int
    file_type: str = "unknown"


@dataclass(frozen=True, slots=True)
class SkippedMember:
    """A member that was not written, and why. `path` is safe to show; `size_bytes` is what the index declares."""

    path: str
    reason_code: str
    size_bytes: int
    position: int


@dataclass(frozen=True, slots=True)
class NameOrigin:
    """
    What a member's path was made of, where it is not simply the UTF-8 that stands in the archive.

    `confidence` (0 to 1) is set where the encoding was guessed; `remarks` say what another system might stumble over,
    `folded` what a volume without case would take the path for where it takes another member's for the same.
    """

    raw: bytes
    encoding: str
    confidence: float | None = None
    remarks: tuple[str, ...] = ()
    folded: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what there is to say, the raw name as hexadecimal digits."""
        said = {
            "raw": self.raw.hex(),
            "encoding": self.encoding,
            "confidence": self.confidence,
            "remarks": list(self.remarks),
            "folded": self.folded,
        }
        return {name: value for name, value in said.items() if value not in (None, [], "") or name == "raw"}


@dataclass(frozen=True, slots=True)
class Extraction:
    """
    All members of one archive, each exactly once: written or skipped.

    `names` holds, by position, where a path came from when that is worth keeping.
    """

    files: tuple[MemberFile, ...]
    skipped: tuple[SkippedMember, ...]
    directories: int
    written_bytes: int
    names: Mapping[int, NameOrigin] = field(default_factory=dict)

    @property
    def members(self) -> int:
        return len(self.files) + len(self.skipped)


@dataclass(frozen=True, slots=True)
class BatchLease:
    """The right to extract one batch until the lease expires; `attempt` counts from 1."""

    batch_id: str
    token: str
    attempt: int
    drop_name: str


@dataclass(frozen=True, slots=True)
class ClaimedFile:
    """One file in hand: the row as it was claimed, with the token that its outcome must carry."""

    doc_id: str
    batch_id: str
    run_id: str
    file_path: str
    file_name: str
    member_path: str
    file_type: str
    size_bytes: int
    sha256: str
    attempt: int
    token: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """
    A failure that is not about the file: `cause` is the same for all that have it in common, `reason` is for people.

    `retry_after_seconds` is what the other side asked for.
    """

    cause: str
    reason: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What one attempt came to. `state` is success, skipped, retrying or failed; `due_at` is set when retrying.

    `handler` and `handler_version` tell what produced it, None where that is not known; `trouble` is not stored.
    """

    doc_id: str
    token: str | None
    state: FileState
    finished_at: datetime
    duration_ms: int
    result: Any = None
    error_type: str | None = None
    error_message: str | None = None
    skip_reason: str | None = None
    due_at: datetime | None = None
    handler: str | None = None
    handler_version: str | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class InHand:
    """What a worker process was doing when it was last seen: kept outside the process, so that it survives it."""

    token: str
    doc_id: str
    started_monotonic: float
    """When the attempt began; infinite once the handler has returned and the outcome is not recorded yet."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease: host, boot, process and a nonce, since a restarted pod keeps its name and its pid."""

    host: str
    boot: str
    pid: int
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.nonce}"
