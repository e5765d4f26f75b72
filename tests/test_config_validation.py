"""The settings against the machine: folders, rights, file systems, a database that can work."""

import os
import tempfile
from pathlib import Path

import pytest

from inbox.config import load_config
from inbox.core.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_validation_makes_the_folders(base):
    """
    A storage base that does not exist yet is made, with its folders.
    """
    load_config().validate()

    assert {"uploads", "extracted", "processed", "quarantine", "receipts"} == {path.name for path in base.iterdir()}


def test_validation_names_every_problem_with_its_mend(tmp_path, monkeypatch):
    """
    What only a look at the machine shows is named all at once, and each problem says what to do.
    """
    (tmp_path / "shared").write_text("a file, not a folder")
    monkeypatch.setenv("STORAGE_BASE_PATH", str(tmp_path / "shared"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://h")

    with pytest.raises(ConfigurationError) as refused:
        load_config().validate()

    assert any("mount a writable volume" in problem for problem in refused.value.problems)
    assert any("end it with /NAME" in problem for problem in refused.value.problems)


def test_database_in_memory_is_refused(base, monkeypatch):
    """
    An SQLite database that would forget everything is not taken.
    """
    monkeypatch.setenv("DATABASE_URL", "sqlite://")

    with pytest.raises(ConfigurationError) as refused:
        load_config().validate()

    assert "in memory" in refused.value.problems[0]


@pytest.fixture
def somebody(monkeypatch):
    """A storage base that anybody may reach, and a process without root's rights."""
    nobody = 65534
    with tempfile.TemporaryDirectory(prefix="inbox-test-") as folder:
        base = Path(folder)
        base.chmod(0o755)
        monkeypatch.setenv("STORAGE_BASE_PATH", folder)
        load_config().validate()
        monkeypatch.chdir(base)
        root = os.geteuid() == 0
        if root:
            os.seteuid(nobody)
        yield base
        if root:
            os.seteuid(0)
        for path in (base, *base.iterdir()):
            path.chmod(0o755)


def test_folder_of_somebody_else_is_a_problem(somebody):
    """
    A folder that this user cannot write is named with its owner's mend.
    """
    if os.getuid() != 0:
        (somebody / "uploads").chmod(0o555)

    with pytest.raises(ConfigurationError) as refused:
        load_config().validate()

    assert f"{somebody / 'uploads'} is not writable by uid {os.geteuid()}; chown it" in refused.value.problems[0]


def test_base_of_somebody_else_is_a_problem(somebody, monkeypatch):
    """
    A base in which this user cannot make the folders is named with what to mount or set.
    """
    if os.getuid() != 0:
        somebody.chmod(0o555)
    monkeypatch.setenv("STORAGE_UPLOADS_DIR", "new")

    with pytest.raises(ConfigurationError) as refused:
        load_config().validate()

    assert refused.value.problems[0].startswith(
        f"STORAGE_BASE_PATH: cannot make new/ below {somebody}: Permission denied"
    )


def test_other_file_system_is_a_problem(base, monkeypatch):
    """
    A folder on another file system is named, since a move to it is no rename.
    """
    load_config().validate()
    stat = Path.stat

    def mounted(path, **options):
        status = stat(path, **options)
        if path != base / "processed":
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))

    monkeypatch.setattr(Path, "stat", mounted)

    with pytest.raises(ConfigurationError) as refused:
        load_config().validate()

    (problem,) = refused.value.problems
    assert problem.startswith("processed/ and extracted/ lie on different file systems; mount one volume")


def test_folder_that_leads_elsewhere_is_a_problem(base, tmp_path):
    """
    A folder that is a link out of the storage base is named.
    """
    load_config().validate()
    (base / "processed").rmdir()
    (base / "processed").symlink_to(tmp_path)

    with pytest.raises(ConfigurationError) as refused:
        load_config().validate()

    (problem,) = refused.value.problems
    assert "leaves the storage base: 'processed'" in problem
