"""What the tests of the archive reader share: an archive's bytes as an open file, judged and unpacked."""

import pytest
from zips import opened

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
