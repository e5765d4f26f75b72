"""
One archive of many small files, from the drop to the receipt, on both databases.

    python benchmarks/run.py                      50,000 files of 4 KiB, three rounds on each database, next to unzip
    python benchmarks/run.py --files 5000 --rounds 1

Each round starts `inbox run --once` anew in a temporary folder. The stages' times are those that the service logs
itself; the whole is what the command took, the start of its processes included. PostgreSQL runs with durable defaults.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

HERE: Final = Path(__file__).resolve().parent
MIB: Final = 1024**2
MEASURED: Final = ("extraction", "registration", "processing", "whole")

console = Console(highlight=False)


@dataclass(frozen=True)
class Round:
    """What one round came to: seconds by stage, and the largest process of the service in bytes."""

    seconds: dict[str, float]
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description="One archive of many small files, on both databases.")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--bytes", type=int, default=4096, help="size of each file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--sqlite-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inbox-bench-", dir=options.folder) as name:
        folder = Path(name)
        archive = make_archive(folder / "many.zip", options.files, options.bytes)
        console.print(
            f"{options.files:,} files of {options.bytes:,} bytes, archive of {archive.stat().st_size / MIB:,.1f} MiB"
        )
        results: dict[str, list[Round]] = {"SQLite": [], "PostgreSQL": []}
        unzips: list[float] = []
        with databases(options.sqlite_only) as urls:
            for number in range(options.rounds):
                unzips += measure_unzip(archive, folder)
                for kind, make_url in urls.items():
                    results[kind].append(measure(archive, folder / f"{kind}-{number}", make_url(), options.files))
        show(results, unzips, options.files)


def make_archive(path: Path, files: int, size: int) -> Path:
    """Write an archive of compressible text files, a thousand to a folder; the same at every call."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(4000)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(files):
            text = b" ".join(chance.choices(words, k=size // 6 + 1))[:size].ljust(size)
            archive.writestr(f"folder-{number // 1000:03}/file-{number:06}.txt", text)
    return path


@contextmanager
def databases(sqlite_only: bool) -> Iterator[dict[str, Any]]:
    """Yield for each kind a function that returns the URL of a fresh database."""
    if sqlite_only:
        yield {"SQLite": lambda: ""}
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from postgres import own_server

    with own_server({}) as server:
        yield {"SQLite": lambda: "", "PostgreSQL": server.create_database}


def measure(archive: Path, storage: Path, url: str, files: int) -> Round:
    (storage / "uploads").mkdir(parents=True)
    dropped = storage / "uploads" / archive.name
    shutil.copyfile(archive, dropped)
    os.utime(dropped, (time.time() - 60, time.time() - 60))
    environment = os.environ | {
        "STORAGE_BASE_PATH": str(storage),
        "DATABASE_URL": url,
        "HANDLERS": "noop",
        "PYTHONPATH": str(HERE),
        "SETTLE_SECONDS": "0.1",
    }
    began = time.perf_counter()
    output = subprocess.run(
        [sys.executable, "-m", "inbox", "run", "--once"],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    whole = time.perf_counter() - began
    lines = [json.loads(line) for line in output.splitlines()]
    events = {line["event"]: line for line in lines if "event" in line}
    registered, closed = events["BatchRegistered"], events["BatchClosed"]
    if (closed["state"], closed["succeeded"]) != ("completed", files):
        raise SystemExit(f"not all files went through: {closed}")
    seconds = {
        "extraction": registered["extraction_seconds"],
        "registration": registered["registration_seconds"],
        "processing": closed["seconds"],
        "whole": whole,
    }
    shutil.rmtree(storage)
    return Round(seconds, peak_of_children())


def peak_of_children() -> int:
    """Return the resident memory of the largest process that this one has waited for, so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def measure_unzip(archive: Path, folder: Path) -> list[float]:
    if shutil.which("unzip") is None:
        return []
    target = folder / "unzipped"
    began = time.perf_counter()
    subprocess.run(["unzip", "-q", str(archive), "-d", str(target)], check=True)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return [seconds]


def show(results: dict[str, list[Round]], unzips: list[float], files: int) -> None:
    table = Table("database", *(f"{name}, s" for name in MEASURED), "files/s processed", "peak of a process, MiB")
    for kind, rounds in results.items():
        if not rounds:
            continue
        cells = [spread([one.seconds[name] for one in rounds]) for name in MEASURED]
        rate = files / statistics.median(one.seconds["processing"] for one in rounds)
        table.add_row(kind, *cells, f"{rate:,.0f}", f"{max(one.peak_bytes for one in rounds) / MIB:,.0f}")
    console.print(table)
    if unzips:
        console.print(f"unzip of the same archive alone: {spread(unzips)} s")


def spread(values: list[float]) -> str:
    """Return the median, with the least and the greatest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
