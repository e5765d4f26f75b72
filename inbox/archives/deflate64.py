"""
Deflate64 by way of `inflate64`, held to bounds that it does not keep itself.

It cannot be told how much to give, forgets what it did not consume, does not say how much that was, and never lets go
of a buffer that it was given. So it gets a few bytes at a time, always from the same buffers.
"""

import threading
from typing import Final

_STEP_BYTES: Final = 32
"""16 symbols at the most, of at least 18 bits and up to 65,538 bytes each: about a megabyte comes of them."""


class _Buffers(threading.local):  # it reads them while other threads may run
    def __init__(self) -> None:
        self.of_size = tuple(bytearray(size) for size in range(_STEP_BYTES + 1))


_buffers: Final = _Buffers()


class Inflate64:
    """`inflate64` in the manner of the other decompressors; of unused data it only says that there is some."""

    def __init__(self) -> None:
        from inflate64 import Inflater

        self._inner = Inflater()
        self._packed = memoryview(b"")
        self._ready = memoryview(b"")

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof) and not self._ready

    @property
    def unused_data(self) -> bytes:
        return bytes(self._packed[:1])

    @property
    def needs_input(self) -> bool:
        return not self._ready and not self._packed

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return up to `max_length` bytes; more data may come once `needs_input` says so. Damage raises ValueError."""
        if data:
            self._packed = memoryview(data)
        content = bytearray()
        while max_length < 0 or len(content) < max_length:
            if not self._ready:
                if self._inner.eof or not self._packed:
                    break
                self._step()
            given = self._ready if max_length < 0 else self._ready[: max_length - len(content)]
            content += given
            self._ready = self._ready[len(given) :]
        return bytes(content)

    def _step(self) -> None:
        """Feed a few bytes, and the last ones one by one: a stream that ends within a step leaves some for the next."""
        size = _STEP_BYTES if len(self._packed) > _STEP_BYTES else 1
        buffer = _buffers.of_size[size]
        buffer[:] = self._packed[:size]
        self._ready = memoryview(self._inner.inflate(buffer))
        self._packed = self._packed[size:]
