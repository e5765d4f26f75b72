"""
The two encryptions that are read: the traditional one (APPNOTE 6.1) and WinZip's AES (AE-1 and AE-2).

The latter is laid out in https://www.winzip.com/en/support/aes-encryption/: salt, two bytes that verify the password,
data, ten bytes that authenticate it. The former is broken and still written; one byte is all by which it knows a wrong
password.
"""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Protocol

from inbox.archives.reasons import refuse

AES_METHOD: Final = 99
AES_FIELD: Final = 0x9901

_KEY_BYTES: Final = {1: 16, 2: 24, 3: 32}
_VERIFIER_BYTES: Final = 2
_CODE_BYTES: Final = 10
_ROUNDS: Final = 1000
_TRADITIONAL: Final = 0
_TRADITIONAL_HEAD_BYTES: Final = 12


class WrongPasswordError(Exception):
    """The password is not the one that the member was encrypted with."""


@dataclass(frozen=True, slots=True)
class Seal:
    """How a member is encrypted, and with what it opens once that is known."""

    strength: int
    """0 is the traditional encryption; 1 to 3 are AES with 128, 192 and 256 bits."""
    check_byte: int = 0
    """Of the traditional encryption: what the last byte before the data decrypts to."""
    has_crc: bool = True
    """AE-2 leaves the checksum out: its authentication code does more."""
    password: bytes = field(default=b"", repr=False)

    @property
    def is_aes(self) -> bool:
        return self.strength != _TRADITIONAL

    @property
    def head_bytes(self) -> int:
        """How much stands before the data."""
        return _KEY_BYTES[self.strength] // 2 + _VERIFIER_BYTES if self.is_aes else _TRADITIONAL_HEAD_BYTES

    @property
    def overhead_bytes(self) -> int:
        """How much of the packed bytes is not data."""
        return self.head_bytes + (_CODE_BYTES if self.is_aes else 0)


def traditional_seal(check_byte: int, password: bytes = b"") -> Seal:
    return Seal(_TRADITIONAL, check_byte, password=password)


def aes_seal(content: bytes) -> tuple[Seal, int] | None:
    """Return the seal that the AES field describes, and the method of compression below it; None if it is malformed."""
    version, strength = int.from_bytes(content[:2], "little"), content[4] if len(content) == 7 else 0  # noqa: PLR2004 - the field has one length
    if version not in {1, 2} or content[2:4] != b"AE" or strength not in _KEY_BYTES:
        return None
    return Seal(strength, has_crc=version == 1), int.from_bytes(content[5:7], "little")


def check_password(seal: Seal, head: bytes) -> None:
    """Raise WrongPasswordError when the first bytes of the member show that the seal's password does not fit."""
    _cipher(seal, head)


def unsealed(pieces: Iterator[bytes], packed_bytes: int, seal: Seal, name: str) -> Iterator[bytes]:
    """
    Yield the data of a member in the clear; the first of the pieces has to hold all that stands before it.

    Raises ArchiveRefusedError: ENCRYPTED when the password does not fit, BAD_DATA when, after the last of the data, the
    authentication code is not the one of what was read.
    """
    first = next(pieces, b"")
    try:
        cipher = _cipher(seal, first[: seal.head_bytes])
    except WrongPasswordError:
        raise refuse("ENCRYPTED", "with another password than the others", name, damaged=True) from None
    left = packed_bytes - seal.overhead_bytes
    code = b""
    for piece in chain((first[seal.head_bytes :],), pieces):
        data = piece[:left]
        code += piece[len(data) :]
        left -= len(data)
        if data:
            yield cipher.decrypt(data)
    if not cipher.authenticates(code):
        raise refuse("BAD_DATA", "its authentication code differs", name, damaged=True)


class _Cipher(Protocol):
    def decrypt(self, data: bytes) -> bytes: ...
    def authenticates(self, code: bytes) -> bool: ...


def _cipher(seal: Seal, head: bytes) -> _Cipher:
    return _Aes(seal, head) if seal.is_aes else _Traditional(seal, head)


class _Aes:
    """AES in counter mode, the counter beginning with 1 and little-endian, and HMAC-SHA-1 over what is encrypted."""

    def __init__(self, seal: Seal, head: bytes) -> None:
        key_bytes = _KEY_BYTES[seal.strength]
        salt, verifier = head[: key_bytes // 2], head[key_bytes // 2 :]
        keys = hashlib.pbkdf2_hmac("sha1", seal.password, salt, _ROUNDS, 2 * key_bytes + _VERIFIER_BYTES)
        if not hmac.compare_digest(keys[2 * key_bytes :], verifier):
            raise WrongPasswordError

        from Cryptodome.Cipher import AES  # encrypted archives are rare, and this takes its time
        from Cryptodome.Util import Counter

        counter = Counter.new(128, initial_value=1, little_endian=True)
        self._cipher = AES.new(keys[:key_bytes], AES.MODE_CTR, counter=counter)
        self._mac = hmac.new(keys[key_bytes : 2 * key_bytes], digestmod="sha1")

    def decrypt(self, data: bytes) -> bytes:
        self._mac.update(data)
        return self._cipher.decrypt(data)

    def authenticates(self, code: bytes) -> bool:
        return hmac.compare_digest(self._mac.digest()[:_CODE_BYTES], code)


class _Traditional:
    """Three keys of 32 bits that every byte in the clear changes."""

    def __init__(self, seal: Seal, head: bytes) -> None:
        from _zipdecrypter import StandardZipDecrypter  # not by way of its package, which would alter `zipfile`

        self._cipher = StandardZipDecrypter(seal.password)
        if self.decrypt(head)[-1:] != bytes((seal.check_byte,)):
            raise WrongPasswordError

    def decrypt(self, data: bytes) -> bytes:
        clear: bytes = self._cipher.decrypt_bytes(data)
        return clear

    def authenticates(self, code: bytes) -> bool:
        return not code
