"""
What must hold for any bytes at all that somebody drops.

`judge_and_unpack` is one run: the gate's judgement, the plan, the extraction, in a folder of its own. It raises
AssertionError when a promise is broken; every other way to end than a refusal is a crash, NotSettledError too: the drop
does not change meanwhile, and would wait for ever.
"""

import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sealing import PASSWORD

from inbox.archives import Limits, Passwords, Plan, Terms, check_complete, extract_members, plan_extraction
from inbox.archives.reasons import REFUSALS, SKIPS
from inbox.core.errors import ArchiveRefusedError
from inbox.domain import Extraction

LIMITS: Final = Limits(max_archive_bytes=200_000, max_member_bytes=100_000, max_members=50)
TERMS: Final = Terms(LIMITS, Passwords(("open", PASSWORD)))
LENIENT: Final = Terms(LIMITS, TERMS.passwords, accept_outside=True)


def judge_and_unpack(data: bytes, base: Path) -> str:
    """
    Take the bytes as a drop, in the empty folder `base`; returns the reason code, or "taken".

    What is refused for bytes before or behind it is judged once more where those are let be.
    """
    verdict = _judge(data, base, TERMS)
    return _judge(data, base, LENIENT) if verdict in {"PREPENDED_DATA", "TRAILING_DATA"} else verdict


def _judge(data: bytes, base: Path, terms: Terms) -> str:
    drop, target = base / "drop.zip", base / "target"
    drop.write_bytes(data)
    drop.chmod(0o400)
    target.mkdir()
    fd = os.open(drop, os.O_RDONLY)
    try:
        check_complete(fd)
        plan = plan_extraction(fd, terms)
        extraction = extract_members(fd, plan, target, LIMITS)
    except ArchiveRefusedError as error:
        verdict = error.reason_code
    else:
        verdict = "taken"
        check_accounts(plan, extraction, target)
        check_against_zipfile(plan, data, target)
    finally:
        os.close(fd)
    assert verdict == "taken" or verdict in REFUSALS, verdict
    check_nothing_else(base, data)
    shutil.rmtree(target)
    drop.unlink()
    return verdict


def check_nothing_else(base: Path, data: bytes) -> None:
    """Nothing beside the target, the drop as it was; in the target plain files and folders, within the limits."""
    assert {"drop.zip", "target"} == set(os.listdir(base)), "something was made outside the target"
    assert data == (base / "drop.zip").read_bytes(), "the drop was changed"
    size_bytes = count = 0
    for path in _below(base / "target"):
        status = path.lstat()
        assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode), f"{path} is neither file nor folder"
        assert not stat.S_IMODE(status.st_mode) & 0o7000, f"{path} has set-id or sticky bits"
        if stat.S_ISREG(status.st_mode):
            assert 1 == status.st_nlink, f"{path} is linked"
            size_bytes += status.st_size
        count += 1
    assert size_bytes <= LIMITS.max_archive_bytes + 1024 * 1024, "more bytes than the limit and the piece in hand"
    assert count <= LIMITS.max_members, "more files and folders than the limit"


def check_accounts(plan: Plan, extraction: Extraction, target: Path) -> None:
    """Every planned file is there with its size, nothing else is, and every skipped member has a known reason."""
    found = {str(path.relative_to(target)): path.lstat().st_size for path in _below(target) if not path.is_dir()}
    assert {file.path: file.size_bytes for file in extraction.files} == found
    assert {file.path for file in plan.files} == set(found)
    assert all(member.reason_code in SKIPS for member in extraction.skipped)
    positions = [member.position for member in (*extraction.files, *extraction.skipped)]
    assert len(positions) == len(set(positions)), "a member was accounted for twice"
    assert sum(found.values()) == extraction.written_bytes <= LIMITS.max_archive_bytes


def check_against_zipfile(plan: Plan, data: bytes, target: Path) -> None:
    """Where Python's own reader reads a member too, it reads the same: one archive, one content."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as other:
            infos = other.infolist()
            for file in plan.files:
                try:
                    content = other.read(infos[file.position])
                except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
                    continue
                assert content == (target / file.path).read_bytes(), f"{file.path!r} is read in two ways"
            assert len(infos) == len(plan.files) + len(plan.skipped) + plan.directories
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError):
        return


def _below(folder: Path) -> Iterable[Path]:
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(root, name)
