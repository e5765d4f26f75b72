"""For any content and any damage: what honest writers wrote comes out, and nothing ever escapes or exceeds."""

import io
import os
import tempfile
import zipfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sealing import PASSWORD, locked, locked_by_aes
from zips import BZIP2, DEFLATE64, DEFLATED, DESCRIPTOR_FLAG, LINK, LZMA, STORED, XZ, ZSTD, Member, archive

from inbox.archives import Limits, Passwords, Terms, check_complete, extract_members, plan_extraction
from inbox.core.errors import ArchiveRefusedError, NotSettledError

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # hundreds of examples, each synced to its disk
NARROW = Limits(max_archive_bytes=200_000, max_member_bytes=100_000, max_members=50)

parts = st.text("abcxyzäß日 .-_", min_size=1, max_size=8).filter(
    lambda part: part not in {".", ".."} and not part.startswith("._")
)
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)
contents = st.one_of(st.binary(max_size=2000), st.integers(0, 5000).map(bytes))
trees = st.dictionaries(paths, contents, max_size=12).filter(
    lambda tree: not any(other.startswith(f"{path}/") for path in tree for other in tree)
)
methods = st.sampled_from([STORED, DEFLATED, DEFLATE64, BZIP2, LZMA, XZ, ZSTD])

SEEDS = [
    archive([Member("a.txt", b"hello" * 99, method) for method in (STORED,)] + [Member("d/b", bytes(5000))]),
    archive([Member(f"{method}", b"hello" * 99, method) for method in (DEFLATED, DEFLATE64, BZIP2, LZMA, XZ, ZSTD)]),
    archive([Member("s", b"streamed" * 9, flags=DESCRIPTOR_FLAG), Member("l", b"s", mode=LINK)]),
    archive(
        [locked("t", b"locked" * 9), locked("d", b"l" * 99, flags=DESCRIPTOR_FLAG), locked_by_aes("s", b"l", STORED)]
    ),
    archive([locked_by_aes("1", b"locked" * 9, version=1), locked_by_aes("z", b"locked" * 9, ZSTD), "clear"]),
    archive([Member("z", b"wide" * 9, zip64=True), Member("inner.zip", archive(["x"]), STORED)], zip64_end=True),
]


@settings(max_examples=60, deadline=None)
@given(tree=trees, method=methods)
def test_whatever_was_packed_comes_out(tree, method):
    """
    Any tree of files, packed by any method, is unpacked to the same tree.
    """
    data = archive([Member(path, content, method) for path, content in tree.items()])

    assert tree == unpacked(data, Limits())


@settings(max_examples=40, deadline=None)
@given(tree=trees)
def test_both_readers_see_the_same(tree):
    """
    What Python's writer makes is read as Python's own reader reads it.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as writer:
        for path, content in tree.items():
            writer.writestr(path, content)

    assert tree == unpacked(target.getvalue(), Limits())


@st.composite
def damaged(draw):
    """Return one of the seeds with a few bytes changed, taken out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["set", "remove", "double", "insert"]))
        if what == "set" and data:
            data[at] = draw(st.sampled_from([0, 1, 0x2F, 0x5C, 0x7F, 0xFF]) | st.integers(0, 255))
        elif what == "remove":
            del data[at : at + draw(st.integers(1, 20))]
        elif what == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(data=damaged())
def test_no_damage_escapes(data):
    """
    A damaged archive is refused under a code, awaited, or unpacked within its target and its limits: nothing else.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        base = Path(folder)
        (base / "target").mkdir()
        (base / "archive.zip").write_bytes(data)
        fd = os.open(base / "archive.zip", os.O_RDONLY)
        try:
            check_complete(fd)
            plan = plan_extraction(fd, Terms(NARROW, Passwords((PASSWORD,))))
            extraction = extract_members(fd, plan, base / "target", NARROW)
        except (ArchiveRefusedError, NotSettledError):
            extraction = None
        finally:
            os.close(fd)

        assert {"target", "archive.zip"} == {path.name for path in base.iterdir()}
        assert data == (base / "archive.zip").read_bytes()
        found = list((base / "target").rglob("*"))
        assert not any(path.is_symlink() for path in found)
        assert sum(path.stat().st_size for path in found if path.is_file()) <= NARROW.max_archive_bytes
        if extraction is not None:
            assert {file.path for file in extraction.files} == {
                str(path.relative_to(base / "target")) for path in found if path.is_file()
            }


def unpacked(data: bytes, limits: Limits) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        target = Path(folder) / "target"
        target.mkdir()
        path = Path(folder) / "archive.zip"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            assert check_complete(fd).complete
            extraction = extract_members(fd, plan_extraction(fd, Terms(limits)), target, limits)
        finally:
            os.close(fd)
        return {file.path: (target / file.path).read_bytes() for file in extraction.files}
