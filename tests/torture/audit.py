"""
The audit: what was dropped against what there is, each promise one question whose every answer is a violation.

The questions are asked of the ledger, in which the expectation (contents, drops, members, victims) and the evidence
(jobs, rows, calls, published, receipts, archives, left_over) lie side by side.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from contents import FAILS, SKIPS, SUCCEEDS
from database import Database
from evidence import gather
from fleet import MAX_ATTEMPTS
from ledger import Ledger
from log_lines import violations_in_logs
from questions import QUESTIONS

KINDS: Final = ("lost", "done twice after success", "stuck", "unexplained")
SHOWN: Final = 10


@dataclass
class Findings:
    """What the audit found, by kind and promise, with the first few of each."""

    violations: dict[str, dict[str, list[str]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    counts: Counter[str] = field(default_factory=Counter)
    exhausted: int = 0
    """Files that failed since kills used up their attempts: that is promised too."""
    sentence: str = ""

    @property
    def is_clean(self) -> bool:
        return not self.counts.total()

    def add(self, kind: str, promise: str, cases: Iterator[str] | list[str]) -> None:
        for case in cases:
            self.counts[kind] += 1
            shown = self.violations[kind].setdefault(promise, [])
            if len(shown) <= SHOWN:
                shown.append(case if len(shown) < SHOWN else "… and more")

    def counted(self) -> str:
        told = "; ".join(f"{kind}: {self.counts[kind]}" for kind in KINDS)
        return f"{told}; failed for want of attempts: {self.exhausted}"

    def evidence(self) -> str:
        lines = []
        for kind, promises in self.violations.items():
            for promise, cases in promises.items():
                lines += [f"{kind}: {promise}", *(f"    {case}" for case in cases)]
        return "\n".join(lines)


def audit(
    ledger: Ledger, database: Database, base: Path, folder: Path, *, stuck: str = "", notes: list[str] | None = None
) -> Findings:
    """Hold everything against everything. `stuck` is what did not come to rest, `notes` what was met on the way."""
    findings = Findings()
    gather(ledger.db, database, base, folder)
    _name_the_deeds(ledger)
    for kind, promise, question in QUESTIONS:
        found = ledger.db.execute(question)
        findings.add(kind, promise, (" ".join(map(str, row)) for row in found))
    findings.add("stuck", "everything comes to rest", [stuck] if stuck else [])
    findings.add("unexplained", "replicas end when they are told to, and well", notes or [])
    for promise, cases in violations_in_logs(folder).items():
        findings.add("unexplained", promise, cases)
    (findings.exhausted,) = ledger.db.execute(
        "SELECT (SELECT count(*) FROM exhausted) + (SELECT count(*) FROM died_unpacking)"
    ).fetchone()
    (folder / "findings.json").write_text(json.dumps(findings.violations, indent=1, ensure_ascii=False))
    return findings


def _name_the_deeds(ledger: Ledger) -> None:
    """Say in tables what each deed demands, and which failures are the faults' own."""
    ledger.db.executescript(
        """
        DROP TABLE IF EXISTS deeds; DROP VIEW IF EXISTS exhausted; DROP VIEW IF EXISTS died_unpacking;
        CREATE TABLE deeds (does TEXT PRIMARY KEY, status TEXT);
        """
    )
    deeds = [(does, "success") for does in SUCCEEDS]
    deeds += [(does, "failed") for does in FAILS] + [(does, "skipped") for does in (*SKIPS, "")]
    ledger.db.executemany("INSERT INTO deeds VALUES (?, ?)", deeds)
    ledger.db.executescript(
        f"""
        CREATE VIEW exhausted AS
            SELECT r.doc_id FROM rows r JOIN members m USING (doc_id) JOIN deeds d USING (does)
            WHERE d.status <> 'failed' AND r.status = 'failed' AND r.attempts = {MAX_ATTEMPTS}
                AND r.error IN ('RETRYABLE', 'TIMEOUT');
        CREATE VIEW died_unpacking AS
            SELECT content FROM jobs
            WHERE status = 'failed' AND reason = 'EXTRACTION_DIED' AND attempts = {MAX_ATTEMPTS};
        """
    )
