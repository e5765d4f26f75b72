"""A volume that does not tell upper case from lower: members that it would take for one refuse the archive."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from processes import TESTS, wait_for
from zips import archive, opened, tree

from inbox.archives import Limits, Terms, extract_members, plan_extraction
from inbox.core.errors import ArchiveRefusedError

SERVER = TESTS / "folding_filesystem.py"


@pytest.fixture
def folding(tmp_path):
    """A folder on a mounted file system that folds names."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse is not to be had")
    pytest.importorskip("mfusepy", reason="libfuse is not installed", exc_type=OSError)
    below, mounted = tmp_path / "below", tmp_path / "mounted"
    for folder in (below, mounted):
        folder.mkdir()
    with subprocess.Popen([sys.executable, str(SERVER), str(below), str(mounted)]) as server:
        try:
            wait_for(lambda: os.path.ismount(mounted) or server.poll() is not None, "the mount")
            if server.poll() is not None:
                pytest.skip("nothing may be mounted here")
            yield mounted
        finally:
            for program in ("fusermount3", "fusermount"):
                with suppress(FileNotFoundError):
                    subprocess.run([program, "-u", "-q", str(mounted)], check=False)
            server.wait(30)


def extract(folder: Path, members):
    target = folder / "target"
    target.mkdir()
    with opened(folder.parent, archive(members)) as fd:
        plan = plan_extraction(fd, Terms())
        extract_members(fd, plan, target, Limits())
    return target, plan


@pytest.mark.parametrize(
    "members",
    [["Makefile", "makefile"], ["Src/a", "src/b"], ["docs/Größe", "docs/GRÖSSE"]],
    ids=["file", "folder", "ß"],
)
def test_names_that_the_volume_takes_for_one_refuse_the_archive(folding, members):
    """
    Nothing is written over anything else where two names come to the same; the code says what to do about it.
    """
    with pytest.raises(ArchiveRefusedError, match="case-sensitive") as refused:
        extract(folding, members)

    assert "NAME_COLLISION" == refused.value.reason_code


def test_other_names_are_written_on_such_a_volume(folding):
    """
    An archive without such names is taken there as anywhere.
    """
    target, plan = extract(folding, ["Docs/ReadMe", "docs2/b"])

    assert {"docs/readme", "docs2/b"} == {path.lower() for path, content in tree(target).items() if content is not None}
    assert 2 == len(plan.files)
