"""Finding the password of an archive: the first in its order that fits all the members that are looked at."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from inbox.archives.decoding import METHODS, crc32, decoded
from inbox.archives.encryption import Seal, WrongPasswordError, check_password
from inbox.archives.index import Entry
from inbox.archives.passwords import Passwords
from inbox.archives.reasons import refuse
from inbox.archives.source import Source
from inbox.core.errors import ArchiveRefusedError

_HEADS: Final = 8
_SURE_HEADS: Final = 3
"""From here on chance does not open the heads of the traditional encryption: one byte each."""
_PROBE_BYTES: Final = 1024 * 1024


def unlock(source: Source, entries: Sequence[Entry], data_at: Sequence[int], passwords: Passwords) -> None:
    """
    Give the seal of every encrypted entry the archive's password.

    A password is judged by the heads of the first few members, and by the beginning of the smallest one's content.
    Raises ArchiveRefusedError (ENCRYPTED) when none fits.
    """
    sealed = [(entry, entry.seal) for entry in entries if entry.seal is not None]
    if not sealed:
        return
    password = _find(source, sealed, data_at, [password.encode() for password in passwords.values])
    if password is None:
        tried = f"none of the {len(passwords):,} passwords fits" if len(passwords) > 1 else "the password does not fit"
        raise refuse("ENCRYPTED", tried, sealed[0][0].shown, damaged=True)
    for entry, seal in sealed:
        entry.seal = replace(seal, password=password)


def _find(
    source: Source, sealed: Sequence[tuple[Entry, Seal]], data_at: Sequence[int], passwords: Sequence[bytes]
) -> bytes | None:
    heads = [(seal, source.read(data_at[entry.position], seal.head_bytes)) for entry, seal in sealed[:_HEADS]]
    fitting = [
        password for password in passwords if all(_fits(replace(seal, password=password), head) for seal, head in heads)
    ]
    readable = [(entry, seal) for entry, seal in sealed if entry.method in METHODS]
    if not readable:
        return next(iter(fitting), None)
    smallest, seal = min(readable, key=lambda one: one[0].packed_bytes)
    for password in fitting:
        if _opens(source, smallest, data_at[smallest.position], replace(seal, password=password)):
            return password
    is_sure = len(heads) >= _SURE_HEADS or any(seal.is_aes for seal, _ in heads)
    return fitting[0] if fitting and is_sure else None  # a damaged content, which writing will say


def _fits(seal: Seal, head: bytes) -> bool:
    try:
        check_password(seal, head)
    except WrongPasswordError:
        return False
    return True


def _opens(source: Source, entry: Entry, data_at: int, seal: Seal) -> bool:
    read_bytes = crc = 0
    try:
        for piece in decoded(source, replace(entry, seal=seal), data_at, entry.shown):
            crc = crc32(piece, crc)
            read_bytes += len(piece)
            if read_bytes >= _PROBE_BYTES:
                return True
    except ArchiveRefusedError:
        return False
    return crc == entry.crc or not seal.has_crc
