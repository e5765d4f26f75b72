"""Leaving: what stays in the uploads because it is not whole, no archive, or no file; told once, not at every scan."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from inbox import events
from inbox.archives import Completeness
from inbox.domain import Drop, DropIdentity
from inbox.events import Emit
from inbox.pipeline.claiming import locked
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.runner.timing import Timing
from inbox.utils.drops import NOT_A_FILE, Kind, why_no_drop
from inbox.utils.volume import Volume, storable


@dataclass
class Leaving:
    """Tells the log, and the dropper when there is little hope left, of what is not taken."""

    volume: Volume
    reporter: Reporter
    timing: Timing
    emit: Emit
    waiting: dict[str, tuple[DropIdentity, str]] = field(default_factory=dict)
    """Drops that are quiet and not whole, and why."""
    _reported: dict[str, DropIdentity] = field(default_factory=dict)
    """Those among them that have a receipt saying so."""
    _others: Mapping[str, Kind] = field(default_factory=dict)
    """What lies among the drops and is no file."""

    def leave_others(self, others: Mapping[str, Kind]) -> None:
        """Tell once of what is no file: whoever moved in a folder of archives would wait for them in vain."""
        for name in sorted(others.keys() - self._others.keys()):
            self.emit(events.DropLeftAlone(storable(name), NOT_A_FILE, why_no_drop(others[name])))
        self._others = others

    def leave(self, drop: Drop, completeness: Completeness, age_seconds: float) -> None:
        """
        Tell the log and, when it will hardly become whole any more, the dropper; each once for each content.

        The receipt goes when the drop is taken after all.
        """
        if self._reported.get(drop.name) != drop.identity and (
            completeness.is_no_archive or age_seconds >= self.timing.incomplete_after.total_seconds()
        ):
            with locked(self.volume.locks, drop.name) as is_ours:
                if is_ours:
                    self.reporter.report_incomplete(drop, completeness)
                    self._reported[drop.name] = drop.identity
        if self.waiting.get(drop.name) != (drop.identity, completeness.reason):
            self.waiting[drop.name] = (drop.identity, completeness.reason)
            kind = events.DropLeftAlone if completeness.is_no_archive else events.DropWaits
            self.emit(kind(storable(drop.name), completeness.reason_code, completeness.reason))

    def take_up(self, drop: Drop) -> None:
        """Forget a drop that is taken after all."""
        self.waiting.pop(drop.name, None)

    def forget_all_but(self, names: Collection[str]) -> None:
        for memory in (self.waiting, self._reported):
            for name in memory.keys() - names:
                del memory[name]
