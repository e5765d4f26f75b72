"""Judging: the verdict on a file, its facts taken in the order in which the service would come upon them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from inbox.core.errors import format_message
from inbox.domain import short_id
from inbox.lifecycle import BatchState
from inbox.pipeline.explaining.explanation import (
    Explanation,
    Facts,
    KnownBatch,
    Place,
    Ruling,
    Standing,
    Verdict,
)
from inbox.pipeline.settling import BEING_WRITTEN, UNREADABLE
from inbox.utils.drops import NOT_A_FILE, Kind, why_no_drop

_THEN: Final = {
    Verdict.TAKEN: "it is unpacked, and every member gets its row",
    Verdict.WAITS: "it stays where it is, and is looked at again",
    Verdict.REFUSED: "it goes to quarantine/ with its reason, and a receipt says so",
    Verdict.DUPLICATE: "a receipt says so, and it goes the way of the batch's own archive",
    Verdict.LEFT_ALONE: "it stays where it is",
}
_INSTEAD: Final = {Kind.FOLDER: "move the archives in it to the top of the uploads", Kind.LINK: "drop the file itself"}
_FINISH: Final = "finish the copy or copy it anew; if that is all of it, take it away"
_MEND: Final = {
    UNREADABLE: "make it readable for the user that inbox runs as",
    BEING_WRITTEN: "close it in the program that has it open",
}


def judge(facts: Facts) -> Explanation:
    """Return the explanation that these facts come to: the first of them that decides is the reason."""
    rulings = (step(facts) for step in _STEPS)
    ruling = next((one for one in rulings if one is not None), None) or _taken(facts)
    return Explanation(ruling if ruling.then else replace(ruling, then=_THEN[ruling.verdict]), facts)


def _taken(facts: Facts) -> Ruling:
    known = facts.known
    then = f"it is unpacked as {_batch(known)}, which waits for its extraction" if known is not None else ""
    return Ruling(Verdict.TAKEN, then=then)


def _by_name(facts: Facts) -> Ruling | None:
    if facts.is_temporary_name:
        return Ruling(
            Verdict.LEFT_ALONE,
            "TEMPORARY_NAME",
            "a name like this marks somebody's unfinished copy",
            hint="rename it when the copy is whole",
        )
    if facts.kind is not Kind.FILE:
        return Ruling(
            Verdict.LEFT_ALONE,
            NOT_A_FILE,
            why_no_drop(facts.kind),
            hint=_INSTEAD.get(facts.kind, "drop a ZIP"),
        )
    if facts.place is Place.BELOW_UPLOADS:
        return Ruling(
            Verdict.LEFT_ALONE,
            "BELOW_UPLOADS",
            "only the top level of the uploads is looked at",
            hint="move it to the top of the uploads",
        )
    return None


def _by_settling(facts: Facts) -> Ruling | None:
    if facts.has_changed:
        return Ruling(Verdict.WAITS, "NOT_QUIET", "it changed while it was looked at")
    quiet, whole = facts.quiet, facts.whole
    if quiet is not None and quiet.left_seconds:
        reason = f"it changed {max(quiet.age_seconds, 0.0):.1f} s ago and is judged in {quiet.left_seconds:.1f} s"
        return Ruling(Verdict.WAITS, "NOT_QUIET", reason)
    if whole is None or whole.is_whole or (whole.is_no_archive and facts.refusal is not None):
        return None
    if whole.is_no_archive:
        then = "it stays where it is, and a receipt says so"
        return Ruling(Verdict.LEFT_ALONE, whole.reason_code, whole.reason, then, "drop a ZIP")
    return Ruling(Verdict.WAITS, whole.reason_code, whole.reason, hint=_MEND.get(whole.reason_code, _FINISH))


def _by_batch_of_this_drop(facts: Facts) -> Ruling | None:
    known = facts.known
    return _taken_on(known) if known is not None and known.standing is Standing.CARED_FOR else None


def _by_lock(facts: Facts) -> Ruling | None:
    if facts.lock is None or not facts.lock.is_held:
        return None
    who = "a process that cannot be seen from here" if facts.lock.process is None else f"process {facts.lock.process}"
    return Ruling(Verdict.WAITS, "LOCKED", f"{who} is taking it just now")


def _by_content(facts: Facts) -> Ruling | None:
    known = facts.known
    if known is None or known.standing is Standing.TO_EXTRACT:
        return None
    if known.standing is not Standing.RECOGNISED:
        return _taken_on(known)
    if known.state == BatchState.EXTRACTING:
        return Ruling(Verdict.WAITS, "UNDER_WAY", f"the same content is just being unpacked as {_batch(known)}")
    return _refused_before(known) or Ruling(
        Verdict.DUPLICATE, "DUPLICATE", f"{_batch(known)}, which is {known.state}", hint=_retry_of(known)
    )


def _by_archive(facts: Facts) -> Ruling | None:
    refusal = facts.refusal
    if refusal is None:
        return None
    reason = format_message(refusal.detail, subject=refusal.member)
    if refusal.patience_seconds:
        reason = f"it looks damaged, or is still being copied; refused in {refusal.patience_seconds:.1f} s: {reason}"
        return Ruling(Verdict.WAITS, refusal.reason_code, reason)
    return Ruling(Verdict.REFUSED, refusal.reason_code, reason, hint=refusal.hint)


def _by_room(facts: Facts) -> Ruling | None:
    room = facts.room
    if room is None or room.is_enough:
        return None
    reason = f"the volume has {room.free_bytes:,} bytes free and needs {room.needed_bytes:,}"
    return Ruling(Verdict.WAITS, "DISK_FULL", reason, hint="free some space")


_STEPS: Final[tuple[Callable[[Facts], Ruling | None], ...]] = (
    _by_name,
    _by_settling,
    _by_batch_of_this_drop,
    _by_lock,
    _by_content,
    _by_archive,
    _by_room,
)


def _taken_on(known: KnownBatch) -> Ruling:
    """Judge a drop whose own batch has been somebody's business already."""
    refused = _refused_before(known)
    if refused is not None:
        return refused
    if known.state == BatchState.RECEIVED:
        reason = f"{_batch(known)} is tried again at {known.due_at:%H:%M:%S} UTC: {known.reason or 'not due yet'}"
        return Ruling(Verdict.WAITS, "NOT_DUE", reason)
    if known.state == BatchState.EXTRACTING:
        who = known.lease_owner or "somebody gone, whose work will be taken over"
        return Ruling(Verdict.WAITS, "UNDER_WAY", f"{_batch(known)} is being unpacked by {who}")
    if not known.is_reported:
        then = "its files are worked on; receipt and archive find their places at the end"
    else:
        then = "it stays where it is, as AFTER_SUCCESS says"
    return Ruling(Verdict.TAKEN, "KNOWN", f"{_batch(known)} is {known.state}", then, _retry_of(known))


def _refused_before(known: KnownBatch) -> Ruling | None:
    if not known.never_unpacked:
        return None
    reason = f"like {_batch(known)}: {known.reason or ''}"
    hint = f"mend the archive and drop it again, or: inbox retry {short_id(known.batch_id)}"
    return Ruling(Verdict.REFUSED, known.reason_code or "", reason, "it goes to quarantine/, as before", hint)


def _retry_of(known: KnownBatch) -> str:
    has_failures = known.state in {BatchState.PARTIAL, BatchState.FAILED}
    return f"to try its failed files again: inbox retry {short_id(known.batch_id)}" if has_failures else ""


def _batch(known: KnownBatch) -> str:
    return f"batch {short_id(known.batch_id)} ({known.drop}, {known.received_at:%Y-%m-%d %H:%M:%S} UTC)"
