"""
Drops, kills and faults at random for as long as one likes, and an audit of every member at the end:
`make torture ARGS="--seconds 3600 --replicas 4 --database postgresql --seed 7"`.

Exit status 0 when nothing was lost, done twice, stuck or left unexplained; else 1, and everything is kept.
"""

import argparse
import faulthandler
import heapq
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "archives")]

from audit import Findings, audit  # noqa: E402 - found by the path above
from database import Database, database_of  # noqa: E402
from dropping import Dropper, Steps  # noqa: E402
from faults import KILLS, Harm  # noqa: E402
from fleet import Fleet  # noqa: E402
from ledger import Ledger  # noqa: E402
from volume import Volume, mounted  # noqa: E402

MOST_OPEN: Final = 3_000
"""No further drop while so many members wait."""
LOOK_SECONDS: Final = 1.0
PEACE_SECONDS: Final = 60.0
"""Without a change for so long, what is not at rest is stuck."""
GIB: Final = 1 << 30


@dataclass
class Torture:
    """One run: everything goes on in steps, in one thread, in the order of their times."""

    fleet: Fleet
    database: Database
    volume: Volume
    dropper: Dropper
    harm: Harm
    drop_gap_seconds: float
    most_drops: int | None = None
    """Then the run ends before its time."""
    _steps: list[tuple[float, int, Steps]] = field(default_factory=list)
    _tickets: count = field(default_factory=count)
    _open: int = 0

    def run(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        self.fleet.start()
        for steps in (self._drops(ends_at), self._faults(ends_at), self._looks(ends_at)):
            self._begin(steps)
        while self._steps:
            at, _, steps = heapq.heappop(self._steps)
            time.sleep(max(at - time.monotonic(), 0.0))
            pause = next(steps, None)
            if pause is not None:
                heapq.heappush(self._steps, (time.monotonic() + pause, next(self._tickets), steps))

    def rest(self) -> str:
        """Let the fleet work in peace; returns what is not at rest after a minute without a change, or nothing."""
        changed_at, before = time.monotonic(), ""
        while time.monotonic() - changed_at < PEACE_SECONDS:
            self.fleet.look_after()
            found = self._unrest()
            if not found:
                return ""
            if found != before:
                changed_at, before = time.monotonic(), found
            time.sleep(0.3)
        return before

    def _begin(self, steps: Steps) -> None:
        heapq.heappush(self._steps, (time.monotonic(), next(self._tickets), steps))

    def _drops(self, ends_at: float) -> Steps:
        chance = random.Random(f"{self.dropper.seed}/pace")
        while time.monotonic() < ends_at and self.dropper.drops != self.most_drops:
            if self._open + self.dropper.open_members() < MOST_OPEN:
                self._begin(self.dropper.next())
            yield chance.expovariate(1 / self.drop_gap_seconds)

    def _faults(self, ends_at: float) -> Steps:
        yield 3.0
        while time.monotonic() < ends_at and self.dropper.drops != self.most_drops:
            steps, gap = self.harm.next()
            if steps is not None:
                self._begin(steps)
            yield gap

    def _looks(self, ends_at: float) -> Steps:
        while time.monotonic() < ends_at and self.dropper.drops != self.most_drops:
            self.fleet.look_after()
            try:
                ((self._open,),) = self.database.rows(
                    "SELECT count(*) FROM file_extractions WHERE processing_completed_at IS NULL"
                )
            except OSError:
                self._open = max(self._open, MOST_OPEN)  # nobody knows; it will not take more for now
            yield LOOK_SECONDS

    def _unrest(self) -> str:
        waiting = sorted(path.name for path in self.volume.base.joinpath("uploads").iterdir())
        meant = self.dropper.ledger.names_left()
        marks = len(list(self.volume.base.glob(".inbox/instances/*.lock"))) - len(self.fleet.replicas)
        try:
            ((files,),) = self.database.rows(
                "SELECT count(*) FROM file_extractions WHERE processing_completed_at IS NULL"
            )
            ((batches,),) = self.database.rows("SELECT count(*) FROM processing_jobs WHERE reported_at IS NULL")
            ((leases,),) = self.database.rows("SELECT count(*) FROM leases")
        except OSError as error:
            return f"the database does not answer: {error}"
        drops = [name for name in waiting if name not in meant]
        counts = {"drops": len(drops), "files": files, "batches": batches, "leases": leases, "marks": marks}
        return ", ".join(f"{number} {what}" for what, number in counts.items() if number)


def main() -> int:
    faulthandler.register(signal.SIGUSR1)  # where are you?
    options = parsed()
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=options.folder))
    with mounted(folder, 0 if options.plain else 2 * GIB + int(options.seconds) * (GIB >> 8)) as volume:
        (volume.base / "uploads").mkdir(parents=True)
        findings = tortured(options, folder, volume)
    print(findings.sentence)
    if findings.is_clean and not options.keep:
        shutil.rmtree(folder)
        return 0
    print(findings.evidence())
    print(f"kept in {folder}")
    return 0 if findings.is_clean else 1


def tortured(options: argparse.Namespace, folder: Path, volume: Volume) -> Findings:
    with database_of(options.database, volume.base) as database:
        ledger = Ledger(folder / "ledger.db")
        workers = 1 if options.replicas > 2 else 2
        fleet = Fleet(options.replicas, volume.base, database.url, folder, ledger, WORKER_PROCESSES=workers)
        dropper = Dropper(volume.base / "uploads", ledger, options.seed)
        harm = Harm(fleet, database, volume, ledger, options.seed, frozenset(options.only or ()))
        torture = Torture(fleet, database, volume, dropper, harm, options.gap, options.drops)
        try:
            torture.run(options.seconds)
            stuck = torture.rest()
            fleet.end(30.0)
        finally:
            fleet.kill()
        findings = audit(ledger, database, volume.base, folder, stuck=stuck, notes=[*fleet.died, *harm.notes])
        killed = sum(number for kind, number in harm.counts.items() if kind in KILLS) + fleet.killed_by_handlers
        others = ", ".join(f"{kind} {number}" for kind, number in sorted(harm.counts.items()) if kind not in KILLS)
        findings.sentence = (
            f"seed {options.seed}, {options.seconds:g} s, {database.kind}, {options.replicas} replicas:"
            f" {dropper.drops:,} drops, {dropper.members:,} members, {killed} kills,"
            f" {harm.counts.total() - killed + fleet.killed_by_handlers} other faults ({others});"
            f" {findings.counted()}"
        )
        if not volume.can_fail:
            findings.sentence += "; the volume had no faults (it takes root to mount one)"
        return findings


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Torture inbox, and account for every member.")
    parser.add_argument("--seconds", type=float, default=300, help="how long (default: %(default)g)")
    parser.add_argument("--drops", type=int, help="at the most")
    parser.add_argument("--replicas", type=int, default=2, choices=range(1, 9), help="how many (default: %(default)s)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--seed", type=int, default=None, help="of drops and faults (default: by chance)")
    parser.add_argument("--gap", type=float, default=0.25, help="seconds between drops (default: %(default)g)")
    parser.add_argument("--only", action="append", metavar="FAULT", help="only faults of this kind; may be repeated")
    parser.add_argument("--plain", action="store_true", help="a plain folder for a volume, which has no faults")
    parser.add_argument("--folder", type=Path, help="where everything is kept (default: the temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep everything in any case")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(1_000_000)
    return options


if __name__ == "__main__":
    sys.exit(main())
