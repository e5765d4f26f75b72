"""What the tests of the archive reader share: an archive's bytes as an open file, judged and unpacked."""

import subprocess
from pathlib import Path

import packing
import pytest
from zips import opened, tree

from inbox.archives import Limits, Passwords, Terms, check_complete, extract_members, plan_extraction


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks an archive's bytes into a new folder: what came of it, and the folder."""
    count = 0

    def run(data: bytes, limits: Limits | None = None, passwords: Passwords | None = None, outside=False, **options):
        nonlocal count
        count += 1
        target = tmp_path / f"target-{count}"
        target.mkdir()
        with opened(tmp_path, data) as fd:
            plan = plan_extraction(fd, Terms(limits or Limits(), passwords or Passwords(), accept_outside=outside))
            return extract_members(fd, plan, target, limits or Limits(), **options), target

    return run


@pytest.fixture
def judge(tmp_path):
    """Return a function that says whether an archive's bytes are whole."""

    def run(data: bytes):
        with opened(tmp_path, data) as fd:
            return check_complete(fd)

    return run


@pytest.fixture
def taken(judge, unpack):
    """Return a function that gives the tree which an archive unpacks to, whole and with nothing skipped."""

    def run(data: bytes):
        verdict = judge(data)
        assert verdict.complete, verdict.reason
        extraction, target = unpack(data)
        assert () == extraction.skipped
        return tree(target)

    return run


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a function that compiles a program once; the folder in which the results stand."""
    folder = tmp_path_factory.mktemp("built")
    done = set()

    def build(command: str) -> Path:
        if command not in done:
            subprocess.run(["sh", "-c", command], cwd=folder, check=True, env=packing.environment(BUILT=folder))
            done.add(command)
        return folder

    return build


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Return a function that makes a tree on the disk once; its folder."""
    made = {}

    def plant(content: dict[str, bytes | None]) -> Path:
        key = tuple(content)
        if key not in made:
            made[key] = packing.plant(tmp_path_factory.mktemp("planted") / "tree", content)
        return made[key]

    return plant


@pytest.fixture
def pack(tmp_path, built, planted):
    """Return a function that lets a writer pack a tree: the archive's bytes. Skips where the writer is missing."""

    def run(writer: packing.Writer, content: dict[str, bytes | None]) -> bytes:
        if not packing.is_installed(writer.probe):
            pytest.skip(f"{writer.name.partition(',')[0]} is not installed")
        folder = built(writer.build) if writer.build else tmp_path
        return packing.run(writer, planted(content), tmp_path / "packed.zip", folder)

    return run
