"""What is dropped, made from a seed: archives with members whose names say what their handler does, and others."""

import hashlib
import random
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from zips import BZIP2, DEFLATED, FOLDER, LINK, LZMA, PIPE, STORED, Member, archive

TAKEN, REFUSED, UNFIT = "taken", "refused", "unfit"
SUCCEEDS: Final = {
    "ok": 90.0,
    "slow": 1.0,
    "retry1": 1.0,
    "retry2": 0.5,
    "large": 0.3,
    "nul": 0.3,
    "output": 0.5,
    "segfaultonce": 0.1,
    "exitonce": 0.1,
    "killonce": 0.1,
    "hangonce": 0.05,
    "killservice": 0.02,
}
FAILS: Final = {"broken": 1.0, "always": 0.2, "segfault": 0.02, "exit": 0.02, "hang": 0.01}
SKIPS: Final = {"skip": 1.0}
DOES: Final = SUCCEEDS | FAILS | SKIPS
SIZES: Final = (1, 3, 10, 40, 120, 300)
BIG_MEMBERS: Final = 20_000
BIG_EVERY, BIG_AT = 300, 150
LARGEST_SAMPLE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Expected:
    """One member: what its handler will do, or why it is skipped while unpacking."""

    path: str
    does: str
    size: int
    sha256: str | None
    skip: str | None = None


@dataclass(frozen=True)
class Content:
    """The bytes of a drop, what has to become of them, and of every member."""

    data: bytes
    verdict: str
    reason: str | None = None
    members: tuple[Expected, ...] = ()

    @cached_property
    def id(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def make_content(seed: int, number: int) -> Content:
    """Return the content of drop `number`, the same for the same seed."""
    chance = random.Random(f"{seed}/content/{number}")
    if number % BIG_EVERY == BIG_AT:
        return _taken(chance, BIG_MEMBERS)
    (kind,) = chance.choices([_honest, _hostile, _sampled, _no_archive, _cut], [80, 7, 7, 2, 1])
    return kind(chance)


def _honest(chance: random.Random) -> Content:
    return _taken(chance, chance.randint(1, chance.choice(SIZES)))


def _taken(chance: random.Random, count: int) -> Content:
    members, expected = _members(chance, count)
    skipped, reasons = _skipped_members(chance)
    folders = [Member("folder/", b"", STORED, mode=FOLDER)] if chance.random() < 0.2 else []
    everything = [*folders, *members, *skipped]
    return Content(archive(everything), TAKEN, members=(*expected, *reasons))


def _members(chance: random.Random, count: int) -> tuple[list[Member], list[Expected]]:
    deeds = chance.choices(list(DOES), DOES.values(), k=count) if count < BIG_MEMBERS else ["ok"] * count
    members, expected = [], []
    for position, does in enumerate(deeds):
        path = f"{chance.choice(('', 'd/', 'd/e f/', 'größe/'))}{does}-{position}.txt"
        content = _bytes(chance, small=count >= BIG_MEMBERS)
        method = chance.choices((STORED, DEFLATED, BZIP2, LZMA), (40, 57, 2, 1))[0] if len(content) < 9999 else DEFLATED
        members.append(Member(path, content, method))
        expected.append(Expected(path, does, len(content), hashlib.sha256(content).hexdigest()))
    return members, expected


def _bytes(chance: random.Random, *, small: bool) -> bytes:
    if small:
        return chance.randbytes(chance.randint(1, 40))
    (size,) = chance.choices((0, 50, 3000, 200_000), (1, 40, 58, 1))
    return chance.randbytes(chance.randint(0, size)) if chance.random() < 0.7 else b"line of text\n" * (size // 13)


def _skipped_members(chance: random.Random) -> tuple[list[Member], list[Expected]]:
    kinds = {
        "JUNK": Member("__MACOSX/._a", b"resource fork"),
        "SYMLINK": Member("link", b"elsewhere", STORED, mode=LINK),
        "SPECIAL_FILE": Member("pipe", b"", STORED, mode=PIPE),
        "UNSUPPORTED_METHOD": Member("old.bin", b"packed by a method of long ago", 6),
    }
    chosen = [reason for reason in kinds if chance.random() < 0.1]
    members = [kinds[reason] for reason in chosen]
    return members, [
        Expected(member.name.decode(), "", member.size, None, reason)
        for reason, member in zip(chosen, members, strict=True)
    ]


def _hostile(chance: random.Random) -> Content:
    """An archive that is honest but for one thing."""
    members, _ = _members(chance, chance.randint(1, 20))
    unlike = chance.randbytes(8)
    one, reason = chance.choice(
        [
            (Member("../up.txt", unlike), "UNSAFE_PATH"),
            (Member("/etc/cron.d/up", unlike), "ABSOLUTE_PATH"),
            (Member("leads-out", b"/etc/passwd", STORED, mode=LINK), "SYMLINK_ESCAPES"),
            (Member(members[0].name, unlike), "DUPLICATE_NAME"),
            (Member("wrong-sum", unlike, STORED, crc=1), "BAD_CRC"),
            (Member("cut", b"x" * 500, DEFLATED, packed=b"\x4b"), "BAD_DATA"),
            (Member("sealed", unlike, STORED, flags=1), "ENCRYPTED"),
        ]
    )
    return Content(archive([*members, one]), REFUSED, reason)


def _sampled(chance: random.Random) -> Content:
    """One of the samples of the suite. They come again with the same bytes, and are recognised."""
    data, reason = chance.choice(_samples())
    return Content(data, REFUSED, reason)


@cache
def _samples() -> list[tuple[bytes, str]]:
    from test_differentials import DIFFERENT
    from test_one_lie import LIES
    from test_refusing import HOSTILE

    samples = (HOSTILE | DIFFERENT | LIES).values()
    unique = {data: reason for data, reason in samples if len(data) <= LARGEST_SAMPLE_BYTES}
    return list(unique.items())


def _no_archive(chance: random.Random) -> Content:
    return Content(b"no archive " + chance.randbytes(chance.randint(100, 5000)), UNFIT, "NOT_AN_ARCHIVE")


def _cut(chance: random.Random) -> Content:
    """The beginning of an archive, as an interrupted copy leaves it."""
    whole = _taken(chance, 20).data
    return Content(whole[: chance.randint(40, len(whole) - 100)], UNFIT, None)
