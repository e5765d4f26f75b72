"""Encrypted members, made by the descriptions of the two encryptions: APPNOTE 6.1, and WinZip's of AE-1 and AE-2."""

import hashlib
import hmac
import struct
import zlib

from Cryptodome.Cipher import AES
from zips import DEFLATED, DESCRIPTOR_FLAG, Member, extra_field, pack

AES_METHOD, ENCRYPTED_FLAG = 99, 1
PASSWORD = "sesame"
SALT = bytes(range(16))
TIME_BYTE = 0
"""The high byte of the time that `zips` writes: what the check is against where the checksum comes later."""
_TABLE = [zlib.crc32(bytes([n]), 0xFFFFFFFF) ^ 0xFFFFFFFF for n in range(256)]


class _Keys:
    def __init__(self, password: bytes):
        self.keys = [0x12345678, 0x23456789, 0x34567890]
        for byte in password:
            self.update(byte)

    def update(self, byte: int) -> None:
        first, second, third = self.keys
        first = first >> 8 ^ _TABLE[(first ^ byte) & 0xFF]
        second = ((second + (first & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        self.keys = [first, second, third >> 8 ^ _TABLE[(third ^ second >> 24) & 0xFF]]

    def encrypt(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            mask = self.keys[2] & 0xFFFF | 2
            out.append(byte ^ mask * (mask ^ 1) >> 8 & 0xFF)
            self.update(byte)
        return bytes(out)


def encrypt_traditionally(data: bytes, check_byte: int, password: str = PASSWORD) -> bytes:
    return _Keys(password.encode()).encrypt(bytes(11) + bytes([check_byte]) + data)


def encrypt_by_aes(data: bytes, strength: int = 3, password: str = PASSWORD) -> bytes:
    size = 8 + 8 * strength
    salt = SALT[: size // 2]
    keys = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, 1000, 2 * size + 2)
    block = AES.new(keys[:size], AES.MODE_ECB)
    blocks = -(-len(data) // 16)
    stream = block.encrypt(b"".join(count.to_bytes(16, "little") for count in range(1, blocks + 1))) if blocks else b""
    sealed = bytes(a ^ b for a, b in zip(data, stream, strict=False))
    return salt + keys[2 * size :] + sealed + hmac.digest(keys[size : 2 * size], sealed, "sha1")[:10]


def aes_field(method: int = DEFLATED, strength: int = 3, version: int = 2, vendor: bytes = b"AE") -> bytes:
    return extra_field(0x9901, struct.pack("<H2sBH", version, vendor, strength, method))


def locked(name: str, content: bytes = b"content", method: int = DEFLATED, password: str = PASSWORD, **more) -> Member:
    """A member under the traditional encryption."""
    flags = more.pop("flags", 0) | ENCRYPTED_FLAG
    check_byte = TIME_BYTE if flags & DESCRIPTOR_FLAG else zlib.crc32(content) >> 24
    more.setdefault("packed", encrypt_traditionally(pack(content, method), check_byte, password))
    return Member(name, content, method, flags, **more)


def locked_by_aes(
    name: str, content: bytes = b"content", method: int = DEFLATED, password: str = PASSWORD, **more
) -> Member:
    """A member under AES, as AE-2 unless `version` says otherwise."""
    strength, version = more.pop("strength", 3), more.pop("version", 2)
    more.setdefault("packed", encrypt_by_aes(pack(content, method), strength, password))
    more.setdefault("crc", 0 if version == 2 else zlib.crc32(content))
    more.setdefault("extra", aes_field(method, strength, version))
    return Member(name, content, AES_METHOD, more.pop("flags", 0) | ENCRYPTED_FLAG, **more)
