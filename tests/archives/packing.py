"""
What archive writers are given to pack, and how one is run.

A writer is one shell command, run in the folder that it packs. It finds in its environment `OUT` (the archive to
write), `SCRATCH` (an empty folder), `WRITERS` (the folder of the programs beside the tests) and `BUILT` (what was
compiled of them).
"""

import os
import random
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from zips import STORED, Member, archive

WRITERS = Path(__file__).parent / "writers"
RIGS = Path(__file__).parents[2] / ".rigs"
"""Where `.ci/run` installs the JavaScript writers."""

_random = random.Random(2107)
WORDS = b"the same words again and again, " * 500

TREE: dict[str, bytes | None] = {
    "docs": None,
    "docs/inner.zip": archive([Member("one.txt", b"stored " * 99, STORED), "two.txt"]),
    "docs/nested": None,
    "docs/nested/deep": None,
    "docs/nested/deep/noise.bin": _random.randbytes(20_000),
    "docs/words.txt": WORDS,
    "empty folder": None,
    "empty.txt": b"",
    "größe": None,
    "größe/日本 語.txt": "größe und 日本\n".encode(),
    "large.bin": _random.randbytes(1024**2) + WORDS * 131,
}
TREE["large.bin"] = TREE["large.bin"][: 3 * 1024**2]
FILES_ALONE = {path: content for path, content in TREE.items() if path != "empty folder"}
"""The tree as writers leave it that know files only."""


@dataclass(frozen=True)
class Writer:
    """One way to write an archive. `probe` exits with 0 where the writer is installed."""

    name: str
    probe: str
    command: str
    tree: dict[str, bytes | None] = field(default_factory=lambda: TREE)
    """What has to come out."""
    build: str = ""
    """What compiles its program, into the folder where it is run."""


def named(*writers: Writer) -> list:
    """Return the writers as parameters of a test."""
    return [pytest.param(writer, id=writer.name) for writer in writers]


@cache
def is_installed(probe: str) -> bool:
    return subprocess.run(["sh", "-c", probe], check=False, capture_output=True).returncode == 0


def plant(folder: Path, tree: dict[str, bytes | None]) -> Path:
    """Make the tree on the disk."""
    folder.mkdir()
    for path, content in tree.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    return folder


def environment(**places: Path) -> dict[str, str]:
    """Return what a writer finds in its environment."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "WRITERS": str(WRITERS)} | {k: str(v) for k, v in places.items()}


def run(writer: Writer, source: Path, out: Path, built: Path) -> bytes:
    """Let the writer pack the folder; returns the archive's bytes."""
    scratch = out.parent / "scratch"
    scratch.mkdir()
    places = environment(OUT=out, SCRATCH=scratch, BUILT=built, HOME=scratch)
    done = subprocess.run(
        ["sh", "-c", writer.command], cwd=source, env=places, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return out.read_bytes()
