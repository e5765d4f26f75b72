"""The dropper: brings drop after drop into the uploads, in every way that clients have, as the seed says."""

import os
import random
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Final

from contents import UNFIT, Content, make_content
from ledger import GONE, LEFT, WITHDRAWN, Ledger

Steps = Generator[float, None, None]
"""Something that goes on in steps; what is yielded is how many seconds later the next one is due."""

DUPLICATES: Final = 0.12
WITHDRAWN_SHARE: Final = 0.03
REMEMBERED: Final = 200
"""Duplicates are of one of so many drops before."""
PIECES: Final = 4


@dataclass
class Dropper:
    """Makes the drops of one seed. `open_drops` says how many members each drop has that still lies in the uploads."""

    uploads: Path
    ledger: Ledger
    seed: int
    number: int = 0
    drops: int = 0
    members: int = 0
    on_the_way: dict[str, int] = field(default_factory=dict)
    _used_up: set[str] = field(default_factory=set)
    """Names that no later drop may have: one that stays has it, or its dropper takes away what has it."""

    def next(self) -> Steps:
        """Return the steps of the next drop."""
        number, self.number = self.number, self.number + 1
        chance = random.Random(f"{self.seed}/drop/{number}")
        origin = number
        if number and chance.random() < DUPLICATES:
            origin = chance.randrange(max(number - REMEMBERED, 0), number)
        content = make_content(self.seed, origin)
        name = name_of(self.seed, number)
        if origin != number and chance.random() < 0.5:
            name = name_of(self.seed, origin)
        if (self.uploads / name).exists() or name in self._used_up:  # to replace a drop is to take it away
            name = name_of(self.seed, number)
        way = chance.choices(list(WAYS), [share for share, _ in WAYS.values()])[0]
        is_withdrawn = content.verdict != UNFIT and chance.random() < WITHDRAWN_SHARE
        if is_withdrawn:  # its dropper takes away what has this name, whoever put it there
            name = name_of(self.seed, number)
        return self._drop(name, content, way, chance, is_withdrawn=is_withdrawn)

    def open_members(self) -> int:
        """Return how many members lie in the uploads, in drops that inbox has not finished."""
        self.on_the_way = {name: count for name, count in self.on_the_way.items() if (self.uploads / name).exists()}
        return sum(self.on_the_way.values())

    def _drop(self, name: str, content: Content, way: str, chance: random.Random, *, is_withdrawn: bool) -> Steps:
        fate = WITHDRAWN if is_withdrawn else LEFT if content.verdict == UNFIT else GONE
        self.ledger.note_content(content)
        self.ledger.note_drop(name, content, fate)
        if fate != GONE:
            self._used_up.add(name)
        self.drops += 1
        self.members += len(content.members)
        path = self.uploads / name
        steps = WAYS[way][1](path, content.data, chance)
        most = chance.randint(1, 3) if is_withdrawn else None  # then often before it is whole
        yield from islice(steps, most)
        steps.close()
        if fate == GONE:
            self.on_the_way[name] = len(content.members)
        if is_withdrawn:
            yield chance.choice((0.0, 0.3, 1.0))
            for left in (path, hidden_beside(path)):
                yield from patiently(lambda left=left: withdraw(left))


def name_of(seed: int, number: int) -> str:
    chance = random.Random(f"{seed}/name/{number}")
    suffix = chance.choice(("", " with spaces", "-größe", ".tar", "_x"))
    return f"{number:06}{suffix}{chance.choice(('.zip', '.zip', '.zip', '.ZIP', ''))}"


def withdraw(path: Path) -> None:
    """Remove a drop that may have been taken; on a volume that is gone it only seems to have been."""
    path.parent.stat()
    path.unlink(missing_ok=True)
    path.parent.stat()


def hidden_beside(path: Path) -> Path:
    """Return the name that a careful client writes under."""
    return path.with_name(f".{path.name}.part")


def by_rename(path: Path, data: bytes, _chance: random.Random) -> Steps:
    hidden = hidden_beside(path)
    yield from patiently(lambda: hidden.write_bytes(data))
    yield from patiently(lambda: hidden.rename(path))


def at_once(path: Path, data: bytes, _chance: random.Random) -> Steps:
    yield from patiently(lambda: path.write_bytes(data))


def in_pieces(path: Path, data: bytes, chance: random.Random) -> Steps:
    """In place, open all the time, with pauses that may be longer than a drop has to be quiet."""
    fd = yield from opened(path)
    try:
        for start, end in pieces(data):
            yield from patiently(lambda start=start, end=end: write_at(fd, data[start:end], start))
            yield chance.uniform(0.0, 0.6)
    finally:
        os.close(fd)


def in_pieces_reopened(path: Path, data: bytes, chance: random.Random) -> Steps:
    """In place, closed after every piece: only the structure tells that it is not whole."""
    for start, end in pieces(data):
        fd = yield from opened(path)
        yield from patiently(lambda fd=fd, start=start, end=end: write_at(fd, data[start:end], start))
        os.close(fd)
        yield chance.uniform(0.0, 0.6)


def hole_last(path: Path, data: bytes, chance: random.Random) -> Steps:
    """The beginning and the end first, then what is between them."""
    fd = yield from opened(path)
    first, *middle, last = pieces(data)
    try:
        for start, end in (first, last, *middle):
            yield from patiently(lambda start=start, end=end: write_at(fd, data[start:end], start))
            yield chance.uniform(0.0, 0.8)
    finally:
        os.close(fd)


def preallocated(path: Path, data: bytes, chance: random.Random) -> Steps:
    """The full size first, as Samba and Windows do, then the content."""
    fd = yield from opened(path)
    try:
        yield from patiently(lambda: os.posix_fallocate(fd, 0, len(data)))
        yield chance.uniform(0.0, 0.8)
        for start, end in pieces(data):
            yield from patiently(lambda start=start, end=end: write_at(fd, data[start:end], start))
            yield chance.uniform(0.0, 0.5)
    finally:
        os.close(fd)


WAYS: Final = {
    "rename": (50, by_rename),
    "at once": (20, at_once),
    "in pieces": (8, in_pieces),
    "in pieces, reopened": (8, in_pieces_reopened),
    "hole last": (7, hole_last),
    "preallocated": (7, preallocated),
}


def pieces(data: bytes) -> list[tuple[int, int]]:
    bounds = [len(data) * share // PIECES for share in range(PIECES + 1)]
    return list(pairwise(bounds))


def write_at(fd: int, piece: bytes, at: int) -> None:
    while piece:
        written = os.pwrite(fd, piece, at)
        piece, at = piece[written:], at + written


def opened(path: Path) -> Generator[float, None, int]:
    fd = -1

    def open_it() -> None:
        nonlocal fd
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)

    yield from patiently(open_it)
    return fd


def patiently(act: Callable[[], object]) -> Steps:
    """Do it, again and again while the volume is full, read-only or gone: a client that keeps trying."""
    while True:
        with suppress(OSError):
            act()
            return
        yield 0.2
