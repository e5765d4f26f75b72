"""
A member's bytes, decompressed within bounds.

Whatever the compressed data says, at most one byte more than the declared size comes out before the archive is refused;
and the stream has to end where the member does.
"""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Final, Protocol

from inbox.archives.deflate64 import Inflate64
from inbox.archives.encryption import Seal, unsealed
from inbox.archives.reasons import refuse
from inbox.archives.records import BZIP2, DEFLATE64, DEFLATED, LZMA, OLD_ZSTD, STORED, XZ, ZSTD
from inbox.archives.source import Source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED_PIECE_BYTES: Final = 256 * 1024
PIECE_BYTES: Final = 1024 * 1024
_MAX_DICTIONARY_BYTES: Final = 128 * 1024**2
_MAX_WINDOW_LOG: Final = 27
"""zstd's window, as large as the dictionary of LZMA may be."""
_LZMA_HEADER_BYTES: Final = 9  # APPNOTE 5.8.8: version, size of the properties, properties


class Decompressor(Protocol):
    """What the decompressors of `bz2`, `lzma` and `isal` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _ZlibInflate:
    """zlib's decompressor in the manner of the others."""

    needs_input = True

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))
        self.needs_input = not self._inner.unconsumed_tail and len(out) != max_length
        return out


def _inflaters() -> tuple[Callable[[], Any], Callable[[bytes, int], int], Any]:
    """Return inflate, CRC-32 and their errors: isal's where its wheel runs, which is two to three times as fast."""
    import zlib

    try:
        from isal import igzip_lib, isal_zlib
    except ImportError:
        return _ZlibInflate, zlib.crc32, (zlib.error,)
    return (
        lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE),
        isal_zlib.crc32,
        (igzip_lib.IsalError, zlib.error),
    )


_Inflate, crc32, _inflate_errors = _inflaters()
_INFLATE_ERRORS: Final[tuple[type[Exception], ...]] = _inflate_errors


def _inflate() -> Decompressor:
    made: Decompressor = _Inflate()
    return made


def _unbzip2() -> Decompressor:
    return bz2.BZ2Decompressor()


def _unxz() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * _MAX_DICTIONARY_BYTES)


def _unzstd() -> Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})


METHODS: Final[dict[int, Callable[[], Decompressor] | None]] = {
    STORED: None,
    DEFLATED: _inflate,
    BZIP2: _unbzip2,
    LZMA: None,
    XZ: _unxz,
    ZSTD: _unzstd,
    OLD_ZSTD: _unzstd,
    **({DEFLATE64: Inflate64} if find_spec("inflate64") else {}),
}
"""What is read here; the rest is skipped by name of the method."""

_ERRORS: Final[tuple[type[Exception], ...]] = (
    *_INFLATE_ERRORS,
    OSError,
    EOFError,
    ValueError,
    lzma.LZMAError,
    zstd.ZstdError,
)


class Coded(Protocol):
    """A member as far as its decoding goes; sizes in bytes."""

    @property
    def packed_bytes(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def method(self) -> int: ...
    @property
    def seal(self) -> Seal | None: ...


def decoded(source: Source, member: Coded, data_at: int, name: str) -> Iterator[bytes]:
    """
    Yield the member's content in pieces of at most a megabyte, `size_bytes` in all.

    Raises ArchiveRefusedError: BAD_DATA for a damaged stream or bytes behind its end, SIZE_LIES for another size,
    ENCRYPTED when the seal's password does not open it.
    """
    packed_bytes, end = member.packed_bytes, data_at + member.packed_bytes
    is_stored = member.method == STORED
    pieces = source.pieces(data_at, end) if is_stored else _packed_pieces(source, data_at, end)
    if member.seal is not None:
        pieces = unsealed(pieces, packed_bytes, member.seal, name)
        packed_bytes -= member.seal.overhead_bytes
    if is_stored or not (packed_bytes or member.size_bytes):  # some writers store nothing at all for an empty file
        yield from pieces
        return
    yield from _bounded(member.method, pieces, member.size_bytes, name)


def decode_whole(data: bytes, size_bytes: int, method: int, name: str, seal: Seal | None = None) -> bytes:
    """Return the content of a small member from its packed bytes at once; raises as `decoded` does."""
    if seal is not None:
        data = b"".join(unsealed(iter((data,)), len(data), seal, name))
    if method == STORED or not (data or size_bytes):
        return data
    if method == DEFLATED:  # by far the most
        decompressor = _Inflate()
        try:
            content: bytes = decompressor.decompress(data, size_bytes + 1)
            if len(content) == size_bytes and decompressor.eof and not decompressor.unused_data:
                return content
        except _INFLATE_ERRORS as error:
            raise refuse("BAD_DATA", str(error), name, damaged=True) from error
    return b"".join(_bounded(method, iter((data,)), size_bytes, name))


def _packed_pieces(source: Source, begin: int, end: int) -> Iterator[bytes]:
    for at in range(begin, end, PACKED_PIECE_BYTES):
        yield source.read(at, min(PACKED_PIECE_BYTES, end - at))


def _start(method: int, pieces: Iterator[bytes], name: str) -> tuple[Decompressor, bytes]:
    """Return the decompressor, and the packed bytes that were read to make it."""
    make = METHODS[method]
    if make is not None:
        return make(), b""
    head = next(pieces, b"")
    properties = head[4:_LZMA_HEADER_BYTES]
    if len(properties) != 5 or head[2:4] != b"\x05\0" or properties[0] >= 9 * 5 * 5:  # noqa: PLR2004 - lc, lp and pb in one byte
        raise refuse("BAD_DATA", "no LZMA properties", name, damaged=True)
    dictionary_bytes = int.from_bytes(properties[1:], "little")
    if dictionary_bytes > _MAX_DICTIONARY_BYTES:
        raise refuse("BAD_DATA", f"an LZMA dictionary of {dictionary_bytes:,} bytes", name)
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    try:
        filters = [{"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": max(dictionary_bytes, 4096)}]
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), head[_LZMA_HEADER_BYTES:]
    except (lzma.LZMAError, ValueError) as error:
        raise refuse("BAD_DATA", "LZMA properties that make no sense", name, damaged=True) from error


def _bounded(method: int, pieces: Iterator[bytes], size_bytes: int, name: str) -> Iterator[bytes]:
    decompressor, first = _start(method, pieces, name)
    left = size_bytes
    packed: bytes | None = first or next(pieces, None)
    while packed is not None and not decompressor.eof:
        try:
            content = decompressor.decompress(packed, min(left + 1, PIECE_BYTES))
        except _ERRORS as error:
            raise refuse("BAD_DATA", str(error), name, damaged=True) from error
        left -= len(content)
        if left < 0:
            raise refuse("SIZE_LIES", f"more than the declared {size_bytes:,} bytes", name)
        if content:
            yield content
        packed = next(pieces, None) if decompressor.needs_input else b""
    if left:
        raise refuse("SIZE_LIES" if decompressor.eof else "BAD_DATA", f"{left:,} bytes are missing", name, damaged=True)
    is_open = not decompressor.eof and method != LZMA  # whose end marker may be left out
    if is_open or decompressor.unused_data or next(pieces, b""):
        raise refuse("BAD_DATA", "the stream does not end where the member does", name, damaged=True)
