"""How answers look: tables and progress on a terminal, plain lines in a pipe, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TextIO

from inbox.core.logging import visible

if TYPE_CHECKING:
    from inbox.cli.checking import Finding
    from inbox.config import Config
    from inbox.database.connection import Sessions
    from inbox.pipeline.retrying import Retried

_COLOURS: Final = {
    "completed": "green",
    "success": "green",
    "ok": "green",
    "partial": "yellow",
    "note": "yellow",
    "retrying": "yellow",
    "failed": "red",
    "quarantined": "red",
    "bad": "red",
}
_FOLDED: Final = frozenset({"drop", "path", "error", "found", "what to do", "value"})
"""Columns that give way on a narrow terminal; ids, states and counts are never cut."""
_FOR_WIDE_SCREENS: Final = frozenset({"received"})
_WIDE: Final = 100
_FACTS: Final = ("batch_id", "drop", "state", "reason", "run_id", "archive", "received_at", "completed_at")
_COUNTS: Final = ("members", "files", "skipped", "succeeded", "failed", "unfinished")
_OPEN_STATES: Final = ("pending", "processing", "retrying")


def show_batches(batches: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print the overview of batches."""
    if as_json:
        print_json({"batches": list(batches)})
        return
    if not batches and sys.stdout.isatty():
        print("no batches yet: drop a ZIP into the uploads folder")
        return
    table(
        ("batch", "drop", "state", "members", "success", "failed", "skipped", "waiting", "received"),
        [
            (
                batch["short_id"],
                batch["drop"],
                batch["state"],
                batch["members"],
                batch["states"]["success"],
                batch["states"]["failed"],
                batch["states"]["skipped"],
                sum(batch["states"][state] for state in _OPEN_STATES),
                batch["received_at"][:19],
            )
            for batch in batches
        ],
    )


def show_batch(batch: dict[str, Any], *, as_json: bool) -> None:
    """Print one batch: its facts, then its failed files."""
    if as_json:
        print_json(batch)
        return
    facts = [(key, batch[key]) for key in _FACTS]
    facts += [(key, batch["statistics"][key]) for key in _COUNTS]
    facts += [("size_bytes", f"{batch['statistics']['size_bytes']:,}")]
    table(("what", "value"), [(key, "" if value is None else value) for key, value in facts])
    if batch["failures"]:
        table(
            ("doc_id", "path", "attempts", "error"),
            [
                (item["doc_id"], item["path"], item["attempts"], f"{item['error_type']}: {item['error']}")
                for item in batch["failures"]
            ],
        )


def show_retried(retried: "Retried", *, as_json: bool) -> None:
    """Print what an operator's retry has set in motion."""
    if as_json:
        print_json(asdict(retried))
    elif retried.archive_offered_again:
        print(f"{visible(retried.drop)} is back in the uploads and will be judged again")
    else:
        print(f"{retried.files} files of {visible(retried.drop)} will be tried again in a new run")


def show_findings(findings: "Sequence[Finding]", *, as_json: bool) -> None:
    """Print what `inbox check` found."""
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
        return
    rows = [(item.verdict, item.about, item.what, item.mend) for item in findings]
    table(("verdict", "about", "found", "what to do"), rows)


def show_config(config: "Config", *, as_json: bool) -> None:
    """Print the settings in force; on a terminal those that differ from the default stand out."""
    values = config.redacted()
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        shown = ",".join(value) if isinstance(value, list) else "" if value is None else value
        print(f"{name}={visible(str(shown))}")


@contextmanager
def progress_of(stream: TextIO, *, wanted: bool) -> "Iterator[Callable[[Sessions], None] | None]":
    """Yield what draws progress when called with the database, or None when nobody watches a terminal."""
    if not wanted or not stream.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from inbox.cli.asking import overview

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns) as progress:

        def draw(sessions: "Sessions") -> None:
            with sessions.reading() as session:
                batches = overview(session, limit=20)
            for batch in reversed(batches):
                waiting = sum(batch["states"][state] for state in _OPEN_STATES)
                if batch["batch_id"] not in tasks and not waiting and batch["state"] != "extracting":
                    continue
                text = f"{visible(batch['drop'])} {batch['state']}"
                if batch["batch_id"] not in tasks:
                    tasks[batch["batch_id"]] = progress.add_task(text, total=None)
                done = batch["members"] - waiting
                progress.update(
                    tasks[batch["batch_id"]], description=text, total=batch["members"] or None, completed=done
                )

        yield draw


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows as a table on a terminal, as tab-separated lines elsewhere; names never bring control characters."""
    cells = [[visible(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print("\t".join(header))
        for row in cells:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    shown = [n for n, name in enumerate(header) if console.width >= _WIDE or name not in _FOR_WIDE_SCREENS]
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for n in shown:
        grid.add_column(header[n], overflow="fold", no_wrap=header[n] not in _FOLDED)
    for row in cells:
        grid.add_row(*(Text(row[n], style=_COLOURS.get(row[n], "")) for n in shown))
    console.print(grid)


def print_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=True, default=str))
