"""
The frozen nouns of an explanation.

Names and messages in them come from strangers and stand as they are: whoever shows them has to make them visible.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from inbox.domain import SkippedMember
from inbox.utils.drops import Kind


class Verdict(StrEnum):
    """What would become of the file."""

    TAKEN = "taken"
    WAITS = "waits"
    REFUSED = "refused"
    DUPLICATE = "duplicate"
    LEFT_ALONE = "left_alone"


class Place(StrEnum):
    """Where the file lies; only what is at the top of the uploads is looked at by the service."""

    UPLOADS = "uploads"
    BELOW_UPLOADS = "below_uploads"
    PROCESSED = "processed"
    QUARANTINE = "quarantine"
    ELSEWHERE = "elsewhere"


class Standing(StrEnum):
    """How a batch of the same content stands to the file, in the words of `claiming`."""

    CARED_FOR = "cared_for"
    UNDER_WAY = "under_way"
    RECOGNISED = "recognised"
    TO_EXTRACT = "to_extract"


@dataclass(frozen=True, slots=True)
class Quiet:
    """How long nothing has changed. `is_certain` is False where another machine's clock told the time of the change."""

    age_seconds: float
    wanted_seconds: float
    left_seconds: float
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Whole:
    """Whether the file is a whole archive that nobody writes; if not, why."""

    is_whole: bool
    reason_code: str
    reason: str
    is_no_archive: bool


@dataclass(frozen=True, slots=True)
class Lock:
    """The file lock of the drop: whether somebody has it, and which process, where this machine can tell."""

    is_held: bool
    process: int | None


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """The batch of this content, as the database has it."""

    batch_id: str
    state: str
    drop: str
    received_at: datetime
    due_at: datetime
    reason_code: str | None
    reason: str | None
    standing: Standing
    never_unpacked: bool
    is_reported: bool
    lease_owner: str | None
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What the index of the archive promises; sizes in bytes. `skipped_members` are the first of the skipped ones."""

    members: int
    files: int
    skipped: int
    folders: int
    declared_bytes: int
    archive_bytes: int
    ratio: float
    skipped_members: tuple[SkippedMember, ...]
    is_decoded: bool
    """Every member was decoded and is what the index declares."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the archive is refused. For `patience_seconds` more the fault may be a copy still under way."""

    reason_code: str
    detail: str
    member: str
    hint: str
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class Room:
    """What the volume needs to have free for the archive, and has."""

    needed_bytes: int
    free_bytes: int
    is_enough: bool


@dataclass(frozen=True, slots=True)
class Limited:
    """The limits in force, as `Limits` has them."""

    max_archive_bytes: int
    max_member_bytes: int
    max_members: int
    max_compression_ratio: float
    max_extraction_seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What was found out about a file. None stands for what was not asked, since something before it decides.

    `database` says why the database could not be asked; empty when it was, or did not need to be.
    """

    name: str
    path: str
    place: Place
    kind: Kind
    limits: Limited
    is_temporary_name: bool
    size_bytes: int | None = None
    changed_at: datetime | None = None
    has_changed: bool = False
    """It changed while it was looked at."""
    quiet: Quiet | None = None
    whole: Whole | None = None
    lock: Lock | None = None
    batch_id: str | None = None
    database: str = ""
    known: KnownBatch | None = None
    contents: Contents | None = None
    refusal: Refusal | None = None
    room: Room | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """
    The verdict, with a code for programs and a reason for people; `then` is what the service does, `hint` what to do.

    Empty where there is nothing to say.
    """

    verdict: Verdict
    reason_code: str = ""
    reason: str = ""
    then: str = ""
    hint: str = ""

    @property
    def is_well(self) -> bool:
        """Say whether the content would be taken, or has been."""
        return self.verdict in {Verdict.TAKEN, Verdict.DUPLICATE}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a file, and all that speaks for it."""

    ruling: Ruling
    facts: Facts
