"""
Archives turned into other archives: as bytes, as records, and as fields that lie.

Most changes of single bytes end at the first check. So a change may also be one of structure (a record doubled, dropped
or moved, a field set to a value that is worth trying), and may be mended afterwards, so that what lies deeper is met.
"""

import random
import struct
import zlib
from typing import Final

SIGNATURES: Final = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08")
_LOCAL, _CENTRAL, _END = SIGNATURES[:3]
_FIELDS: Final = {
    _LOCAL: ((4, 2), (6, 2), (8, 2), (10, 2), (12, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    _CENTRAL: (
        *((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2)),
        *((34, 2), (36, 2), (38, 4), (42, 4)),
    ),
    _END: ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    b"PK\x06\x06": ((4, 8), (24, 8), (32, 8), (40, 8), (48, 8)),
    b"PK\x06\x07": ((4, 4), (8, 8), (16, 4)),
    b"PK\x07\x08": ((4, 4), (8, 4), (12, 4)),
}
_VALUES: Final = (0, 1, 2, 7, 8, 9, 12, 14, 20, 46, 95, 99, 0x7F, 0xFF, 0x800, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_NAMES: Final = (
    *(b"../", b"/", b"..\\", b"\0", b".", b"a/b/", b"C:", b"._", b"__MACOSX/", b"\xe2\x80\xae", b"\xff", b"\x83\x5c"),
    *(b"CON", b"a.", b"a ", b"a:b", b"//", b"\\\\h\\s", b"\n", b"\x1b[2J"),
)
_EXTRAS: Final = (
    struct.pack("<2H2Q", 1, 16, 5, 5),
    struct.pack("<2H3QL", 1, 28, 5, 5, 0, 0),
    struct.pack("<2H", 1, 0),
    struct.pack("<2HBL", 0x7075, 6, 1, zlib.crc32(b"a")) + b"b",
    struct.pack("<2H", 0xCAFE, 0xFFFF),
    b"\0\0\0\0",
)


def mutate(data: bytes, chance: random.Random, max_bytes: int = 1 << 16) -> bytes:
    """Return the archive with a few changes, sometimes mended."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        chance.choice(_CHANGES)(out, chance)
    if chance.random() < 0.5:
        mend(out, chance)
    return bytes(out[:max_bytes])


def mend(out: bytearray, chance: random.Random) -> None:
    """Let the directory tell of what stands before it, as far as it can be made out: offsets, size, count."""
    begin, end = out.find(_CENTRAL), out.rfind(_END)
    if begin < 0 or end < begin or end + 22 > len(out):
        return
    entries = _places(out, _CENTRAL, begin, end)
    for at, local in zip(entries, _places(out, _LOCAL, 0, begin), strict=False):
        if at + 46 > len(out) or local + 30 > len(out):
            return
        if chance.random() < 0.9:
            out[at + 42 : at + 46] = struct.pack("<L", local)
        if chance.random() < 0.7:
            out[local + 6 : local + 26] = out[at + 8 : at + 28]
    struct.pack_into("<2H2L", out, end + 8, len(entries) & 0xFFFF, len(entries) & 0xFFFF, end - begin, begin)


def _places(data: bytearray, signature: bytes, begin: int = 0, end: int | None = None) -> list[int]:
    found, at = [], data.find(signature, begin, end)
    while at >= 0 and len(found) < 1000:
        found.append(at)
        at = data.find(signature, at + 4, end)
    return found


def _set_byte(out: bytearray, chance: random.Random) -> None:
    if out:
        out[chance.randrange(len(out))] = chance.choice((0, 1, 0x2F, 0x5C, 0x7F, 0xFF, chance.randrange(256)))


def _cut(out: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(out) + 1)
    del out[at : at + chance.randint(1, 64)]


def _truncate(out: bytearray, chance: random.Random) -> None:
    del out[chance.randrange(len(out) + 1) :]


def _double(out: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(out) + 1)
    out[at:at] = out[at : at + chance.randint(1, 300)]


def _insert(out: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(out) + 1)
    out[at:at] = chance.choice((chance.randbytes(chance.randint(1, 9)), chance.choice(SIGNATURES), bytes(100)))


def _set_field(out: bytearray, chance: random.Random) -> None:
    """Let one field of one record lie."""
    signature = chance.choice(SIGNATURES)
    places = _places(out, signature)
    if not places:
        return
    at = chance.choice(places)
    offset, width = chance.choice(_FIELDS[signature])
    old = int.from_bytes(out[at + offset : at + offset + width], "little")
    value = chance.choice((*_VALUES, old + 1, old - 1, old ^ 1 << chance.randrange(8 * width), len(out)))
    if at + offset + width <= len(out):
        out[at + offset : at + offset + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _move_record(out: bytearray, chance: random.Random) -> None:
    """Double, move or drop what stands between two signatures."""
    places = sorted(place for signature in SIGNATURES for place in _places(out, signature))
    if len(places) < 2:
        return
    index = chance.randrange(len(places) - 1)
    record = bytes(out[places[index] : places[index + 1]])
    if chance.random() < 0.5:
        del out[places[index] : places[index + 1]]
    if chance.random() < 0.7:
        at = min(chance.choice(places), len(out))
        out[at:at] = record


def _rename(out: bytearray, chance: random.Random) -> None:
    """Write a name that is worth trying over a member's, in both of its headers or in one."""
    new = chance.choice(_NAMES)
    for signature, header, width_at in ((_LOCAL, 30, 26), (_CENTRAL, 46, 28)):
        places = _places(out, signature)
        if not places or chance.random() < 0.1:
            continue
        at = places[min(chance.randrange(2), len(places) - 1)]
        width = int.from_bytes(out[at + width_at : at + width_at + 2], "little")
        out[at + header : at + header + min(width, len(new))] = new[:width]


def _add_extra(out: bytearray, chance: random.Random) -> None:
    """Give a member another extra field."""
    field = chance.choice(_EXTRAS)
    for signature, header, names_at in ((_LOCAL, 30, 26), (_CENTRAL, 46, 28)):
        places = _places(out, signature)
        if not places or chance.random() < 0.3:
            continue
        at = places[min(chance.randrange(2), len(places) - 1)]
        if at + header > len(out):
            continue
        name, extra = struct.unpack_from("<2H", out, at + names_at)
        out[at + header + name : at + header + name] = field
        struct.pack_into("<H", out, at + names_at + 2, (extra + len(field)) & 0xFFFF)


_CHANGES: Final = (
    _set_byte, _cut, _truncate, _double, _insert, _set_field, _set_field, _set_field, _move_record, _rename, _add_extra,
)  # fmt: skip
