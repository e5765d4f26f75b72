"""Writing: nothing outside the target, nothing over anything else, exact accounts, and an end in every trouble."""

import ctypes
import errno
import hashlib
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from zips import STORED, Member, archive, opened, tree

from inbox.archives import Limits, Terms, Watchman, extract_members, plan_extraction
from inbox.archives import watchman as watchman_module
from inbox.archives import writing as writing_module
from inbox.core.errors import ArchiveRefusedError, NotSettledError, RetryableError
from inbox.domain import Extraction

CONTENT = b"some content, " * 1000
MANY = archive([Member(f"folder-{n % 7}/{n}.txt", b"%d" % n) for n in range(600)])


def test_every_member_is_accounted_for(unpack):
    """
    Sizes, hashes and positions are those of the members, and the bytes written add up.
    """
    extraction, _ = unpack(archive([Member("a.txt", CONTENT), Member("__MACOSX/._a"), Member("b/c.txt", b"")]))

    assert [("a.txt", 0), ("b/c.txt", 2)] == [(file.path, file.position) for file in extraction.files]
    assert hashlib.sha256(CONTENT).hexdigest() == extraction.files[0].sha256
    assert (3, len(CONTENT)) == (extraction.members, extraction.written_bytes)


def test_many_small_members_come_out_whole(unpack):
    """
    Members that share a read end in their own files.
    """
    extraction, target = unpack(MANY)

    assert 600 == extraction.members
    assert {f"folder-{n % 7}/{n}.txt": b"%d" % n for n in range(600)} == {
        path: content for path, content in tree(target).items() if content is not None
    }


@pytest.mark.parametrize("method", [STORED, 8])
def test_big_member_is_written_in_pieces(unpack, method):
    """
    A member past what is read in one go has the same content and hash.
    """
    content = os.urandom(1_500_000) + bytes(3_000_000)

    extraction, target = unpack(archive(["before", Member("big", content, method), "after"]))

    assert content == (target / "big").read_bytes()
    assert hashlib.sha256(content).hexdigest() == extraction.files[1].sha256


def test_modes_are_ours(unpack):
    """
    No set-id bit, no strange permission of the archive reaches the volume.
    """
    _, target = unpack(archive([Member("a", mode=0o107777), Member("b", mode=0o100000)]))

    mask = os.umask(0)
    os.umask(mask)
    assert {0o666 & ~mask} == {stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()}


def test_nothing_is_overwritten(tmp_path):
    """
    A file that is there already is not touched; the archive is refused as colliding with it.
    """
    target = tmp_path / "target"
    target.mkdir()
    (target / "a.txt").write_bytes(b"mine")

    with pytest.raises(ArchiveRefusedError) as refused, opened(tmp_path, archive(["a.txt"])) as fd:
        extract_members(fd, plan_extraction(fd, Terms()), target, Limits())

    assert "NAME_COLLISION" == refused.value.reason_code
    assert b"mine" == (target / "a.txt").read_bytes()


def test_shrinking_source_is_not_settled(tmp_path):
    """
    An archive that becomes shorter while it is read goes back to settling.
    """
    target = tmp_path / "target"
    target.mkdir()
    with opened(tmp_path, archive([Member("a.bin", os.urandom(100_000), STORED)])) as fd:
        plan = plan_extraction(fd, Terms())
        os.truncate(tmp_path / "archive.zip", 50_000)

        with pytest.raises(NotSettledError):
            extract_members(fd, plan, target, Limits())


def test_overwritten_source_is_damaged(tmp_path):
    """
    Content that changes between judging and writing does not pass as the one that was judged.
    """
    target = tmp_path / "target"
    target.mkdir()
    with opened(tmp_path, archive([Member("a.bin", CONTENT, STORED)])) as fd:
        plan = plan_extraction(fd, Terms())
        with (tmp_path / "archive.zip").open("r+b") as file:
            file.seek(100)
            file.write(b"other")

        with pytest.raises(ArchiveRefusedError) as refused:
            extract_members(fd, plan, target, Limits())

    assert ("BAD_CRC", True) == (refused.value.reason_code, refused.value.damaged)


def test_limits_are_counted_on_bytes_written(tmp_path):
    """
    Even if a plan were too generous, the bytes written are held against the limits.
    """
    target = tmp_path / "target"
    target.mkdir()
    with opened(tmp_path, archive([Member(f"{n}", CONTENT) for n in range(10)])) as fd:
        plan = plan_extraction(fd, Terms())

        with pytest.raises(ArchiveRefusedError) as refused:
            extract_members(fd, plan, target, Limits(max_archive_bytes=3 * len(CONTENT)))

    assert "ARCHIVE_TOO_LARGE" == refused.value.reason_code
    assert sum(path.stat().st_size for path in target.iterdir()) <= 3 * len(CONTENT)


def test_stops_when_asked(tmp_path):
    """
    A request to stop ends the writing between two groups, as a transient error.
    """
    target = tmp_path / "target"
    target.mkdir()
    answers = iter([False, True])

    with pytest.raises(RetryableError) as stopped, opened(tmp_path, MANY) as fd:
        plan = plan_extraction(fd, Terms())
        extract_members(fd, plan, target, Limits(), watchman=Watchman(Limits(), lambda: next(answers)))

    assert "STOPPED" == stopped.value.reason_code


def test_large_member_is_stopped_within(tmp_path):
    """
    A reason to stop is heard between the pieces of one member too.
    """
    target = tmp_path / "target"
    target.mkdir()
    answers = iter([False, False, True])
    large = archive([Member("large", bytes(5 << 20))])

    with pytest.raises(RetryableError), opened(tmp_path, large) as fd:
        plan = plan_extraction(fd, Terms())
        extract_members(fd, plan, target, Limits(), watchman=Watchman(Limits(), lambda: next(answers)))

    assert 1 << 20 == (target / "large").stat().st_size


@pytest.mark.parametrize("size_bytes", [5, 5 << 20], ids=["many small", "one large"])
def test_time_is_limited(tmp_path, monkeypatch, size_bytes):
    """
    An archive that takes longer to unpack than it may is refused, whether its members are many or large.
    """
    target = tmp_path / "target"
    target.mkdir()
    clock = iter(range(1000))
    members = [Member(f"{number}", bytes(size_bytes)) for number in range(1000 if size_bytes < 10 else 1)]
    limits = Limits(max_seconds=2)

    with pytest.raises(ArchiveRefusedError) as refused, opened(tmp_path, archive(members)) as fd:
        plan = plan_extraction(fd, Terms())
        monkeypatch.setattr(watchman_module.time, "monotonic", lambda: next(clock))
        extract_members(fd, plan, target, limits)

    assert "TOO_SLOW" == refused.value.reason_code
    assert not refused.value.damaged


def test_writer_is_told_of_every_byte_beforehand(tmp_path):
    """
    Whoever holds room for the members hears how much is about to be written, all of it and no more.
    """
    target = tmp_path / "target"
    target.mkdir()
    told = []
    members = [Member("large", bytes(3 << 20)), Member("small", b"12345"), Member("empty", b"")]

    with opened(tmp_path, archive(members)) as fd:
        extraction = extract_members(fd, plan_extraction(fd, Terms()), target, Limits(), before_writing=told.append)

    assert extraction.written_bytes == sum(told) == (3 << 20) + 5


@pytest.mark.parametrize("count", [3, 16, 17, 40])
def test_everything_is_durable_at_the_end(unpack, monkeypatch, count):
    """
    Few files are synced one by one and many by one call, and folders with them, before the account is given.
    """
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    monkeypatch.setattr(writing_module, "_sync_filesystem", synced.append)

    extraction, target = unpack(archive([f"docs/{n}" for n in range(count)]))

    assert isinstance(extraction, Extraction)
    if count > writing_module.FEW_FILES:
        assert 1 == len(synced)
    else:
        assert {str(target), str(target / "docs"), *(str(target / "docs" / str(n)) for n in range(count))} == set(
            synced
        )


def test_file_system_is_really_synced(tmp_path):
    """
    The one call for everything works on this machine's file system.
    """
    handle = os.open(tmp_path, os.O_RDONLY)

    writing_module._sync_filesystem(handle)

    os.close(handle)


@pytest.mark.parametrize(("code", "synced"), [(errno.ENOSYS, 1), (errno.EOPNOTSUPP, 1), (errno.EIO, 0)])
def test_file_system_without_the_call_is_synced_with_all_others(monkeypatch, code, synced):
    """
    Where there is no such call everything is synced; any other trouble comes through, since nothing is durable then.
    """
    calls = []
    monkeypatch.setattr(writing_module, "_libc", SimpleNamespace(syncfs=lambda _: ctypes.set_errno(code) or -1))
    monkeypatch.setattr(os, "sync", lambda: calls.append("sync"))

    with nullcontext() if synced else pytest.raises(OSError, match=os.strerror(code)):
        writing_module._sync_filesystem(0)

    assert synced == len(calls)


def test_kind_of_a_large_member_is_told_by_its_content(unpack):
    """
    What a member is shows in its first bytes, whether it was in memory whole or written in pieces.
    """
    content = b"%PDF-1.7\n" + bytes(2 << 20)

    extraction, _ = unpack(archive([Member("small", content[:99]), Member("large", content)]))

    assert ["pdf", "pdf"] == [file.file_type for file in extraction.files]


def test_zlib_takes_over_where_isal_is_missing():
    """
    Without isal's wheel the standard library inflates, with the same results and the same refusals.
    """
    script = (
        "import sys; sys.modules['isal'] = None\n"
        "from inbox.archives import decoding\n"
        "from inbox.core.errors import ArchiveRefusedError\n"
        "from zips import DEFLATED, pack\n"
        "content = bytes(range(256)) * 9000\n"
        "packed = pack(content, DEFLATED)\n"
        "assert decoding._Inflate is decoding._ZlibInflate\n"
        "assert content == decoding.decode_whole(packed, len(content), DEFLATED, 'a')\n"
        "for size, data in ((len(content) - 1, packed), (len(content) + 1, packed), (len(content), packed[:-9])):\n"
        "    try:\n"
        "        decoding.decode_whole(data, size, DEFLATED, 'a')\n"
        "    except ArchiveRefusedError:\n"
        "        continue\n"
        "    raise SystemExit('taken')\n"
    )
    tests = Path(__file__).parent.parent

    done = subprocess.run([sys.executable, "-c", script], cwd=tests, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)
