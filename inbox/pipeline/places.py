"""Where archives go when they leave the uploads: names that fit, and a move that never takes the wrong file."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from inbox.core.errors import StorageError
from inbox.domain import DropIdentity, short_id
from inbox.utils.drops import look_at
from inbox.utils.filesystem import move_file

MAX_NAME_BYTES: Final = 255
_LONGEST_EXTENSION: Final = 16


def fitting(name: str, suffix: str) -> str:
    """Return name plus suffix, the name cut so that both fit one path component."""
    room = MAX_NAME_BYTES - len(suffix.encode())
    return name.replace("/", "_").encode()[:room].decode("utf-8", "ignore") + suffix


def reason_beside(archive: Path) -> Path:
    """Return where the reason of an archive in quarantine lies."""
    return archive.with_name(fitting(archive.name, ".reason.json"))


def move_aside(
    path: Path, identity: DropIdentity, folder: Path, name: str, batch_id: str, *, drafts: Path | None = None
) -> Path:
    """
    Move an archive out of the uploads, never over another one; return where it lies.

    The name it arrived with is kept when it is free, else the batch's short id goes before the extension; a file of
    the same batch that lies there already is the same content and gives way. Raises StorageError when the drop was
    replaced in the very moment of the move; the new one is put back then.
    """
    as_it_came, numbered = _places(folder, name, batch_id)
    try:
        for place in (as_it_came, numbered):
            with suppress(FileExistsError):
                move_file(path, place, drafts=drafts)
                return _verified(place, identity, path)
        numbered.unlink(missing_ok=True)
        move_file(path, numbered, drafts=drafts)
    except FileNotFoundError:
        return numbered if numbered.exists() else as_it_came
    return _verified(numbered, identity, path)


def find_moved(identity: DropIdentity, folder: Path, name: str, batch_id: str) -> Path | None:
    """Return where an earlier `move_aside` put this very file, or None."""
    for place in _places(folder, name, batch_id):
        drop = look_at(place)
        if drop is not None and drop.identity.is_same_file(identity):
            return place
    return None


def _places(folder: Path, name: str, batch_id: str) -> tuple[Path, Path]:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > _LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    return folder / fitting(name, ""), folder / fitting(stem, f".{short_id(batch_id)}{dot}{extension}")


def _verified(moved: Path, identity: DropIdentity, origin: Path) -> Path:
    """Compare what a move keeps: between file systems it is a copy, with another inode."""
    drop = look_at(moved)
    if drop is not None and (drop.identity.size_bytes, drop.identity.modified_ns) != (
        identity.size_bytes,
        identity.modified_ns,
    ):
        with suppress(FileExistsError):
            move_file(moved, origin)
            raise StorageError(
                "the drop was replaced while it was moved; the new one was put back", subject=origin.name
            )
    return moved
