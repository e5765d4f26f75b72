"""How an explanation looks: the verdict on the first line, then the facts; or the same as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from inbox.cli.screen import print_json, table
from inbox.core.logging import visible
from inbox.domain import short_id
from inbox.pipeline.explaining import Explanation, Facts, Ruling, Verdict
from inbox.pipeline.explaining.explanation import Place

SCHEMA_VERSION: Final = 1
_PLACES: Final = {
    Place.UPLOADS: "in the uploads",
    Place.BELOW_UPLOADS: "in a folder below the uploads",
    Place.PROCESSED: "in processed/; this is what would become of it in the uploads",
    Place.QUARANTINE: "in quarantine/; this is what would become of it in the uploads",
    Place.ELSEWHERE: "outside of the uploads; this is what would become of it there",
}

Row = tuple[str, object]


def show(explanation: Explanation, *, as_json: bool) -> None:
    """Print what would become of a file, and why."""
    if as_json:
        print_json(as_data(explanation))
        return
    print(visible(verdict_line(explanation.ruling)))
    table(("what", "value"), list(_rows(explanation)))


def verdict_line(ruling: Ruling) -> str:
    """Return the verdict as one sentence."""
    match ruling.verdict:
        case Verdict.TAKEN:
            return f"is taken: {ruling.reason}" if ruling.reason else "would be taken"
        case Verdict.WAITS:
            return f"waits: {ruling.reason}"
        case Verdict.REFUSED:
            return f"would be refused: {ruling.reason_code} {ruling.reason}"
        case Verdict.DUPLICATE:
            return f"is a duplicate of {ruling.reason}"
        case Verdict.LEFT_ALONE:
            return f"would be left alone: {ruling.reason}"


def as_data(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as `--json` prints it: the ruling, then the facts, by their names."""
    ruling, facts = (asdict(part, dict_factory=_plain) for part in (explanation.ruling, explanation.facts))
    return {"schema_version": SCHEMA_VERSION, **ruling, **facts}


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields}


def _rows(explanation: Explanation) -> Iterator[Row]:
    facts, ruling = explanation.facts, explanation.ruling
    yield "file", facts.path
    yield "place", _PLACES[facts.place]
    if facts.size_bytes is not None:
        yield "size", f"{facts.size_bytes:,} bytes"
        yield "changed", f"{facts.changed_at:%Y-%m-%d %H:%M:%S} UTC"
    yield from _settling(facts)
    yield from _known(facts)
    yield from _archive(facts)
    yield "then", ruling.then
    if ruling.hint:
        yield "what to do", ruling.hint


def _settling(facts: Facts) -> Iterator[Row]:
    if facts.quiet is not None:
        quiet = facts.quiet
        text = f"for {max(quiet.age_seconds, 0.0):,.1f} s, {quiet.wanted_seconds:g} s are wanted"
        yield "quiet", text if quiet.is_certain else f"{text} (the service counts from its own first look)"
    if facts.whole is not None:
        whole = facts.whole
        yield "whole", "yes, and nobody seems to write it" if whole.is_whole else f"{whole.reason_code}: {whole.reason}"
    if facts.lock is not None:
        who = "somebody unseen" if facts.lock.process is None else f"process {facts.lock.process}"
        yield "lock", f"held by {who}" if facts.lock.is_held else "free"


def _known(facts: Facts) -> Iterator[Row]:
    if facts.batch_id is not None:
        yield "batch_id", facts.batch_id
    if facts.database:
        yield "database", f"could not be asked whether the content is known: {facts.database}"
    if facts.known is None:
        if facts.batch_id is not None and not facts.database:
            yield "known", "no"
        return
    known = facts.known
    yield "known", f"batch {short_id(known.batch_id)} from {known.drop}, {known.state}"
    yield "received", f"{known.received_at:%Y-%m-%d %H:%M:%S} UTC"
    if known.reason:
        yield "its reason", f"{known.reason_code or ''} {known.reason}".strip()
    if known.lease_owner and known.lease_expires_at:
        yield "its lease", f"{known.lease_owner} until {known.lease_expires_at:%H:%M:%S} UTC"


def _archive(facts: Facts) -> Iterator[Row]:
    limits = facts.limits
    contents = facts.contents
    if contents is not None:
        yield "members", f"{contents.members:,} ({limits.max_members:,} allowed)"
        yield "files", f"{contents.files:,} in {contents.folders:,} folders"
        yield "unpacked", f"{contents.declared_bytes:,} bytes ({limits.max_archive_bytes:,} allowed)"
        yield "ratio", f"{contents.ratio:g} to one ({limits.max_compression_ratio:g} allowed beyond 256 MiB)"
        yield "time", f"{limits.max_extraction_seconds:g} s allowed for unpacking"
        yield "skipped", f"{contents.skipped:,}"
        for member in contents.skipped_members:
            yield member.reason_code, member.path
        more = contents.skipped - len(contents.skipped_members)
        if more:
            yield "and skipped", f"{more:,} more"
        yield "contents", "decoded, and as declared" if contents.is_decoded else "not decoded; --deep does"
    if facts.refusal is not None:
        refusal = facts.refusal
        yield "refused", f"{refusal.reason_code}: {refusal.detail}" + (f": {refusal.member}" if refusal.member else "")
    if facts.room is not None:
        room = facts.room
        yield "room", f"{room.needed_bytes:,} bytes needed, {room.free_bytes:,} free"
