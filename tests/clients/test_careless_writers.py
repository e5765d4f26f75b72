"""Writers that do not write from the front to the end, and archives whose prefixes look like an end."""

import os
from itertools import pairwise

import pytest
from delivering import Payload, need_word_of_the_kernel, payload, taken_once
from zips import DEFLATED, STORED, Member, archive

EMPTY = archive([])


def in_rounds(path):
    """Return a way to write that opens and closes the file for each piece, at the place it is told."""
    path.touch()

    def write(placed):
        offset, piece = placed
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(piece)

    return write


def held_open(file):
    """Return a way to write into a file that stays open."""

    def write(placed):
        offset, piece = placed
        os.pwrite(file.fileno(), piece, offset)

    return write


def placed(one: Payload, cuts) -> list[tuple[int, bytes]]:
    return [(start, one.data[start:end]) for start, end in pairwise(cuts)]


def from_the_front(one):
    """Leave the last bytes together: they are zeros, and so already there in room that is reserved."""
    size, index, end = len(one.data), one.data.rfind(b"PK\x01\x02"), one.data.rfind(b"PK\x05\x06")
    return placed(one, (0, 3, 4096, size // 2, index, index + 20, end, end + 4, size))


def hole_last(one):
    """Return the end first, then the beginning, and the middle in two parts last."""
    size, end = len(one.data), one.data.find(b"PK\x01\x02")
    head, first, half, rest = placed(one, (0, 100_000, size // 2, end, size))
    return [rest, head, half, first]


ORDERS = {"preallocated": from_the_front, "hole last": hole_last}


@pytest.mark.parametrize("order", ORDERS)
def test_writer_that_holds_the_file_open(witness, uploads, order):
    """
    However a writer that keeps the file open fills it, with pauses, the drop is taken once, whole.
    """
    need_word_of_the_kernel(uploads)
    one = payload(f"open {order}")
    name = f"open-{order.replace(' ', '-')}.zip"
    with (uploads / name).open("wb") as file:
        if order == "preallocated":
            os.posix_fallocate(file.fileno(), 0, len(one.data))
        witness.deliver(name, ORDERS[order](one), held_open(file))

    assert taken_once(one) == witness.account(name)


def test_preallocating_writer_that_closes(witness, uploads):
    """
    A file that has its full size from the start and is filled in rounds from the front is taken once, whole.
    """
    one = payload("preallocated in rounds")
    path = uploads / "rounds.zip"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(one.data))
    witness.deliver(path.name, from_the_front(one), in_rounds(path))

    assert taken_once(one) == witness.account(path.name)


def test_writer_that_closes_before_its_hole_is_filled(witness, uploads):
    """
    A drop with beginning and end whose middle comes last, in rounds, may be looked into, and is only taken whole.
    """
    one = payload("hole in rounds")
    path = uploads / "hole.zip"
    witness.deliver(path.name, hole_last(one), in_rounds(path))
    account = witness.account(path.name)
    looks = account.pop("taken")
    expected = taken_once(one)

    assert expected.pop("taken")[0] == looks[-1]
    assert expected == account


def test_writer_that_sets_the_time_itself(witness, uploads):
    """
    A file whose size and time never change, since its writer reserves the one and sets the other, is taken once, whole.
    """
    one = payload("own time")
    path = uploads / "own-time.zip"
    half = len(one.data) // 2
    with (uploads / ".own-time.zip").open("wb") as file:
        file.write(one.data[:half])
        os.posix_fallocate(file.fileno(), 0, len(one.data))
    os.utime(uploads / ".own-time.zip", (10**9, 10**9))
    (uploads / ".own-time.zip").rename(path)
    witness.wait_until_left_waiting(path.name)
    with path.open("r+b") as file:
        file.seek(half)
        file.write(one.data[half:])
        file.flush()
        os.utime(file.fileno(), (10**9, 10**9))

    assert taken_once(one) == witness.account(path.name)


def nested(seed: str) -> Payload:
    """Return an archive that stores others at its beginning, in its middle and at its end."""
    inner = payload("inner", members=3, member_bytes=40_000, comment=b"c" * 500).data
    contents = {
        "first.zip": inner,
        "a.bin": payload(f"a {seed}", members=1).data,
        "empty.zip": EMPTY,
        "nested.zip": archive([Member("inner.zip", inner, STORED), Member("empty.zip", EMPTY, STORED)]),
        "b.bin": payload("b", members=1).data,
        "last.zip": inner,
    }
    return Payload(archive([Member(path, content, STORED) for path, content in contents.items()]), contents)


def ends_inside(data: bytes) -> list[int]:
    """Return every place behind something that looks like an end record."""
    found, at = [], data.find(b"PK\x05\x06")
    while at >= 0:
        found.append(at + 22 + int.from_bytes(data[at + 20 : at + 22], "little"))
        at = data.find(b"PK\x05\x06", at + 1)
    return found


@pytest.mark.parametrize("way", ["held open", "in rounds"])
def test_archives_inside_the_archive(witness, uploads, way):
    """
    An archive that arrives slowly, stopping wherever an inner archive ends, is taken once, whole.
    """
    one = nested(way)
    path = uploads / f"nested-{way.replace(' ', '-')}.zip"
    cuts = sorted({0, 4, *ends_inside(one.data), len(one.data)})
    assert len(cuts) > 7
    if way == "in rounds":
        witness.deliver(path.name, placed(one, cuts), in_rounds(path))
    else:
        with path.open("wb") as file:
            witness.deliver(path.name, placed(one, cuts), held_open(file))

    assert taken_once(one) == witness.account(path.name)


def test_big_comment_that_arrives_slowly(witness, uploads):
    """
    An archive whose end record has come and whose long comment has not is not whole yet, and is taken once.
    """
    inner = archive([Member("x.txt", b"x" * 50_000, DEFLATED)])[:-22]
    one = payload("comment", comment=(inner + b"- " * 32_000)[:65_535])
    path = uploads / "comment.zip"
    end = one.data.find(b"PK\x05\x06")
    cuts = [0, end, end + 21, end + 22, end + 23, end + 22 + len(inner), end + 40_000, len(one.data) - 1, len(one.data)]
    witness.deliver(path.name, placed(one, cuts), in_rounds(path))

    assert taken_once(one) == witness.account(path.name)
