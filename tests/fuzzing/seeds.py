"""What mutations start from: archives of every kind that is read, by this suite's builder and by real writers."""

import io
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from sealing import locked, locked_by_aes
from zips import (
    BZIP2,
    DEFLATE64,
    DEFLATED,
    DESCRIPTOR_FLAG,
    FOLDER,
    LINK,
    LZMA,
    PIPE,
    STORED,
    XZ,
    ZSTD,
    Member,
    archive,
    unicode_path,
)

_TEXT = b"hello, inbox\n" * 40


def built() -> list[bytes]:
    """Return small archives that together have every record and field there is."""
    legacy = "日本語".encode("shift_jis")
    return [
        archive([Member("a.txt", _TEXT, STORED), Member("d/b", bytes(5000))]),
        archive(
            [Member(f"{method}", _TEXT, method) for method in (STORED, DEFLATED, DEFLATE64, BZIP2, LZMA, XZ, ZSTD)]
        ),
        archive([Member("s", _TEXT, flags=DESCRIPTOR_FLAG), Member("t", b"", STORED, flags=DESCRIPTOR_FLAG)]),
        archive([Member("l", b"s", STORED, mode=LINK), Member("p", b"", mode=PIPE), Member("s/", b"", mode=FOLDER)]),
        archive([Member("z", _TEXT, zip64=True), Member("in.zip", archive(["x"]), STORED)], zip64_end=True),
        archive([Member(legacy, _TEXT), Member(b"n", _TEXT, extra=unicode_path("名", b"n"))]),
        archive(["__MACOSX/._a", "a/b/c/d", ".DS_Store", "w\\x\\y"], comment=b"comment" * 9),
        archive([locked("t", _TEXT), locked("d", _TEXT, flags=DESCRIPTOR_FLAG), locked_by_aes("s", _TEXT, STORED)]),
        archive([locked_by_aes("1", _TEXT, version=1), locked_by_aes("z", _TEXT, ZSTD), "clear"]),
        archive([]),
    ]


def real() -> list[bytes]:
    """Return small archives by the writers on this machine; Python's is always there."""
    found = [_by_zipfile(zipfile.ZIP_STORED), _by_zipfile(zipfile.ZIP_DEFLATED)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tree/inner").mkdir(parents=True)
        (folder / "tree/a.txt").write_bytes(_TEXT)
        (folder / "tree/inner/ü.bin").write_bytes(bytes(range(256)))
        for number, command in enumerate(
            (
                ["zip", "-qr", "{out}", "tree"],
                ["zip", "-qry", "-fd", "{out}", "tree"],
                ["7z", "a", "-tzip", "-bso0", "{out}", "tree"],
                ["7z", "a", "-tzip", "-bso0", "-mm=LZMA", "{out}", "tree"],
                ["bsdtar", "--format", "zip", "-cf", "{out}", "tree"],
            )
        ):
            if shutil.which(command[0]):
                out = folder / f"{number}.zip"
                subprocess.run([part.format(out=out) for part in command], cwd=folder, check=True)
                found.append(out.read_bytes())
    return found


def _by_zipfile(method: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as writer:
        writer.writestr("mimetype", "application/vnd.oasis.opendocument.text", zipfile.ZIP_STORED)
        writer.writestr("content.xml", _TEXT)
        writer.mkdir("Pictures")
    return target.getvalue()
