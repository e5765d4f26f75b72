"""What the tests of the archive reader share: an archive's bytes as an open file, judged and unpacked."""

import os
from pathlib import Path

import pytest

from inbox.archives import Limits, check_complete, extract_members, plan_extraction


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks an archive's bytes into a new folder: what came of it, and the folder."""
    count = 0

    def run(data: bytes, limits: Limits | None = None, **options):
        nonlocal count
        count += 1
        target = tmp_path / f"target-{count}"
        target.mkdir()
        with opened(tmp_path, data) as fd:
            plan = plan_extraction(fd, limits or Limits())
            return extract_members(fd, plan, target, limits or Limits(), **options), target

    return run


@pytest.fixture
def judge(tmp_path):
    """Return a function that says whether an archive's bytes are whole."""

    def run(data: bytes):
        with opened(tmp_path, data) as fd:
            return check_complete(fd)

    return run


class opened:  # noqa: N801 - reads as the function it is
    """The bytes as an open file."""

    def __init__(self, folder: Path, data: bytes):
        path = folder / "archive.zip"
        path.write_bytes(data)
        self.fd = os.open(path, os.O_RDONLY)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: content by path, None for a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
