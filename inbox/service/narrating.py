"""How events read in the log: the one place that knows level and wording."""

import logging
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from inbox import events
from inbox.domain import short_id
from inbox.events import Event

_INFO, _WARNING, _ERROR = logging.INFO, logging.WARNING, logging.ERROR

_WORDING: Final[dict[type[Event], tuple[int, str]]] = {
    events.ServiceStarted: (_INFO, "inbox serves {storage} with {workers} workers"),
    events.ServiceStopping: (_INFO, "stopping: {reason}"),
    events.ServiceStopped: (_INFO, "stopped after {seconds:g} s"),
    events.TroubleBegan: (_WARNING, "{leg} waits: {reason}"),
    events.TroubleOver: (_INFO, "{leg} goes on after {seconds:g} s"),
    events.WatchingByScan: (_WARNING, "drops are found by scanning only: {reason}"),
    events.WatchingByEvents: (_INFO, "drops are announced again after {seconds:g} s"),
    events.DropsUnannounced: (
        _WARNING,
        "{drops} drops came unannounced: the uploads are scanned every {scan_interval_seconds:g} s",
    ),
    events.DropWaits: (_WARNING, "{drop} is not complete yet: {reason}"),
    events.DropLeftAlone: (_WARNING, "{drop} is left alone: {reason}"),
    events.DropQuarantined: (_ERROR, "{drop} is moved to quarantine: {reason}"),
    events.DropRecognised: (_INFO, "{drop} was taken before and is {state}"),
    events.BatchClaimed: (_INFO, "{drop} is being unpacked"),
    events.BatchReleased: (_WARNING, "{drop} waits: {reason}"),
    events.BatchRegistered: (_INFO, "{drop} has {members} members: {files} files, {skipped} skipped"),
    events.BatchRefused: (_ERROR, "{drop} is refused: {reason}"),
    events.BatchForgotten: (_WARNING, "{drop} is forgotten: {reason}"),
    events.BatchOverdue: (_ERROR, "{drop} ran out of its time: {files} files failed"),
    events.BatchClosed: (_INFO, "{drop} is {state}: {succeeded} succeeded, {failed} failed, {skipped} skipped"),
    events.BatchReported: (_INFO, "{drop} is reported in {receipt}"),
    events.AttemptSucceeded: (_INFO, "{member_path} succeeded"),
    events.AttemptSkipped: (_INFO, "{member_path} skipped: {reason_code}"),
    events.AttemptFailed: (_ERROR, "{member_path} failed: {error_type}: {error}"),
    events.AttemptToRepeat: (_WARNING, "{member_path} is tried again in {wait_seconds:g} s: {error_type}: {error}"),
    events.OutcomeLost: (_WARNING, "an outcome came too late and does not count"),
    events.AttemptsSucceeded: (_INFO, "{times} more succeeded in {seconds:g} s by {by}, as {member_path}"),
    events.AttemptsSkipped: (_INFO, "{times} more skipped in {seconds:g} s by {by}: {reason_code}, as {member_path}"),
    events.AttemptsFailed: (
        _ERROR,
        "{times} more failed in {seconds:g} s by {by}: {error_type}, as {member_path}: {error}",
    ),
    events.AttemptsToRepeat: (
        _WARNING,
        "{times} more to be tried again in {seconds:g} s by {by}: {error_type}, as {member_path}: {error}",
    ),
    events.OutcomesLost: (_WARNING, "{times} more outcomes came too late in {seconds:g} s by {by} and do not count"),
    events.LeaseLost: (_WARNING, "worker {worker} was held up for too long: {files} files are left to others"),
    events.WorkerDied: (_ERROR, "worker {worker} died: {reason}"),
    events.UnpackerDied: (_ERROR, "unpacker {unpacker} died: {reason}"),
    events.WorkRescued: (_WARNING, "took over from {owner}: {released} files given back, {charged} charged"),
    events.FilesReleased: (_INFO, "{files} claimed files given back"),
    events.FilesReoffered: (_INFO, "{files} failed files of {batches} batches are tried again with new handlers"),
    events.BreakerOpened: (_ERROR, "the handler {handler} fails, its files wait: {cause}"),
    events.BreakerClosed: (_INFO, "the handler {handler} gets files again after {seconds:g} s and {probes} probes"),
}

_FIELDS: Final = {kind: tuple(item.name for item in fields(kind)) for kind in _WORDING}


def described(event: Event) -> dict[str, Any]:
    """Return the event's fields."""
    return {name: getattr(event, name) for name in _FIELDS[type(event)]}


def narrator(logger: logging.Logger) -> Callable[[Event], None]:
    """
    Return the subscriber that writes one line per event, with the event's name and fields beside the text.

    The record is made here, without the walk up the stack for a line number that no format shows: there is a line for
    every attempt.
    """

    def narrate(event: Event) -> None:
        level, wording = _WORDING[type(event)]
        if not logger.isEnabledFor(level):
            return
        values = described(event)
        extra = {"event": type(event).__name__, **values}
        batch_id = values.get("batch_id")
        if batch_id:
            extra["correlation_id"] = short_id(batch_id)
        text = wording.format_map(values)
        logger.handle(logger.makeRecord(logger.name, level, __file__, 0, text, (), None, extra=extra))

    return narrate
