"""Whatever a compressed stream claims: no more than was declared comes out, and the stream ends with its member."""

import subprocess
import sys
import tracemalloc
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zips import BZIP2, DEFLATE64, DEFLATED, LZMA, XZ, ZSTD, Member, archive, pack, tree

from inbox.archives.decoding import METHODS, decode_whole
from inbox.core.errors import ArchiveRefusedError

ENDING = {"deflate": DEFLATED, "Deflate64": DEFLATE64, "bzip2": BZIP2, "XZ": XZ, "Zstandard": ZSTD}
"""Methods whose stream says where it ends; LZMA's need not."""
TEXT = b"the same words again and again, " * 20
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


def refusal(packed: bytes, method: int, size: int = len(TEXT)) -> str:
    with pytest.raises(ArchiveRefusedError) as refused:
        decode_whole(packed, size, method, "a.txt")
    return refused.value.reason_code


def zstd_frame(window_log: int, content: bytes) -> bytes:
    """A frame of one raw block, after a header that asks for a window of 2 ** window_log bytes (RFC 8878, 3.1.1)."""
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return ZSTD_MAGIC + bytes([0, (window_log - 10) << 3]) + block + content


def lsb(value: int, width: int) -> str:
    """A number's bits, the lowest first, as extra bits stand in a stream."""
    return f"{value:0{width}b}"[::-1]


def bits(*parts: str) -> bytes:
    """Bits in the order in which they are read, as bytes."""
    stream = "".join(parts)
    return int(stream[::-1], 2).to_bytes(-(-len(stream) // 8), "little")


@pytest.mark.parametrize("method", ENDING.values(), ids=ENDING)
def test_stream_cut_short_anywhere_is_damage(method):
    """
    However many of its last bytes a stream lacks, it is refused as damaged.
    """
    packed, empty = pack(TEXT, method), pack(b"", method)

    codes = {refusal(packed[:length], method) for length in range(len(packed))}
    codes |= {refusal(empty[:length], method, size=0) for length in range(1, len(empty))}

    assert {"BAD_DATA"} == codes


@pytest.mark.parametrize("method", ENDING.values(), ids=ENDING)
@pytest.mark.parametrize("trailing", [b"\0", b"PK", "again"])
def test_bytes_behind_the_stream_are_damage(method, trailing):
    """
    A stream has to end where its member does; neither a byte nor a second stream may follow.
    """
    packed = pack(TEXT, method)

    assert "BAD_DATA" == refusal(packed + (packed if trailing == "again" else trailing), method)


@pytest.mark.parametrize("method", [*ENDING.values(), LZMA], ids=[*ENDING, "LZMA"])
@pytest.mark.parametrize("declared", [0, 1, len(TEXT) - 1, len(TEXT) + 1, 10 * len(TEXT)])
def test_other_size_than_declared_is_refused(method, declared):
    """
    A stream of more bytes or fewer than declared is refused for that.
    """
    code = refusal(pack(TEXT, method), method, declared)

    assert code == "SIZE_LIES" or (declared > len(TEXT) and method == LZMA and code == "BAD_DATA")


@pytest.mark.parametrize("method", [*ENDING.values(), LZMA], ids=[*ENDING, "LZMA"])
def test_bomb_costs_no_memory(unpack, method):
    """
    Of a stream of many zeros that was declared small, no more than a little is ever in memory.
    """
    bomb = archive([Member("a.txt", b"x" * 100, method, packed=pack(bytes(64 << 20), method))])
    tracemalloc.start()

    with pytest.raises(ArchiveRefusedError, match="more than the declared 100 bytes"):
        unpack(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 16 << 20  # half of which is the dictionary that XZ asks for


@pytest.mark.parametrize("method", [DEFLATED, XZ, ZSTD])
def test_content_comes_in_pieces(unpack, method):
    """
    A member of many megabytes is written whole, and is never in memory whole.
    """
    content = b"".join(number.to_bytes(4, "big") * 128 for number in range(1 << 16))
    data = archive([Member("big", content, method)])
    tracemalloc.start()

    _, target = unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert {"big": content} == tree(target)
    assert peak < len(content) // 2


def test_deflate64_keeps_nothing():
    """
    What Deflate64 was given is let go of with its member: memory does not grow by what has been read.
    """
    content = Random(1).randbytes(30_000)
    packed = pack(content, DEFLATE64)
    assert content == decode_whole(packed, len(content), DEFLATE64, "a.txt")
    tracemalloc.start()

    for _ in range(20):
        decode_whole(bytes(bytearray(packed)), len(content), DEFLATE64, "a.txt")
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert left < len(content)


def test_bomb_of_deflate64_comes_in_pieces():
    """
    A stream of nothing but the longest repetitions, 18,000 to one, gives a megabyte at a time at the most.
    """
    longest = ("11000101", "1" * 16, "00000")
    packed = bits("1", "10", "00110000", *longest * 3000, "0000000")
    tracemalloc.start()

    code = refusal(packed, DEFLATE64, size=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "SIZE_LIES" == code
    assert peak < 4 << 20


def test_deflate64_ends_at_any_place():
    """
    Streams of every short length end where their member does, and bytes behind them are seen, however few or many.
    """
    for size in range(100):
        content = Random(size).randbytes(size)
        packed = pack(content, DEFLATE64)
        assert content == decode_whole(packed, size, DEFLATE64, "a.txt")
        assert {"BAD_DATA"} == {refusal(packed + bytes(extra), DEFLATE64, size) for extra in (1, 31, 32, 33, 99)}


def test_distances_of_deflate64_reach_far_back(unpack):
    """
    A repetition 60,000 bytes back, and one of 60,000 bytes, are what Deflate64 adds to deflate.
    """
    block = Random(2).randbytes(65_535)
    stored = b"\0\xff\xff\0\0" + block
    repeat = bits("1", "10", "11000101", lsb(60_000 - 3, 16), "11111", lsb(65_000 - 49_153, 14), "0000000")

    packed = stored + repeat
    content = block + block[-65_000:][:60_000]
    _, target = unpack(archive([Member("a.txt", content, DEFLATE64, packed=packed)]))

    assert {"a.txt": content} == tree(target)


@pytest.mark.parametrize(("dictionary_bytes", "taken"), [(128 << 20, True), ((128 << 20) + 1, False)])
def test_dictionary_of_lzma_is_bounded(dictionary_bytes, taken):
    """
    A dictionary of 128 MiB is read, and a larger one refused before there is room for it.
    """
    packed = bytearray(pack(TEXT, LZMA))
    packed[5:9] = dictionary_bytes.to_bytes(4, "little")

    if taken:
        assert TEXT == decode_whole(bytes(packed), len(TEXT), LZMA, "a.txt")
    else:
        assert "BAD_DATA" == refusal(bytes(packed), LZMA)


def test_window_of_zstandard_is_bounded():
    """
    A frame may ask for a window of 128 MiB, as an LZMA member may for its dictionary, and not for more.
    """
    assert TEXT == decode_whole(zstd_frame(27, TEXT), len(TEXT), ZSTD, "a.txt")
    assert {"BAD_DATA"} == {refusal(zstd_frame(window_log, TEXT), ZSTD) for window_log in range(28, 42)}


@pytest.mark.parametrize(
    "packed",
    [
        b"not a frame of Zstandard at all",
        ZSTD_MAGIC + bytes([0x08]) + bytes(20),  # a reserved bit
        ZSTD_MAGIC + bytes([0x01, 0, 7]) + bytes(20),  # a dictionary that nobody has
        ZSTD_MAGIC + bytes([0xA0, 0xFF, 0xFF, 0xFF, 0xFF]) + bytes(20),  # one segment of four gigabytes
    ],
)
def test_frames_that_cannot_be_read_are_damage(packed):
    """
    What is no frame, or one that needs what is not there, is refused as damaged.
    """
    assert "BAD_DATA" == refusal(packed, ZSTD)


def test_frame_that_is_skipped_is_no_content():
    """
    A frame of Zstandard that readers skip holds nothing, so a member with one alone lacks its content.
    """
    assert "SIZE_LIES" == refusal(bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"skip", ZSTD)


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(sorted(number for number in METHODS if number)),
    packed=st.binary(max_size=200),
    declared=st.integers(0, 300),
)
def test_garbage_is_refused_or_has_its_size(method, packed, declared):
    """
    Any bytes under any method either decode to just the declared size, or refuse the archive under a code.
    """
    try:
        came = len(decode_whole(packed, declared, method, "a.txt"))
    except ArchiveRefusedError as error:
        came = error.reason_code

    assert came in {declared, "BAD_DATA", "SIZE_LIES"}


def test_deflate64_is_an_extra():
    """
    Without the package of the extra everything else is read, and members by Deflate64 are skipped as unsupported.
    """
    program = (
        "import sys; sys.modules['inflate64'] = None; from inbox.archives.decoding import METHODS; print(*METHODS)"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert {str(method) for method in METHODS} - {"9"} == set(told.split())
