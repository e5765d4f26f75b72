"""Short tortures: replicas killed and disturbed at random, and every member accounted for at the end."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
COMMAND = Path(__file__).with_name("torture.py")


@pytest.mark.timeout(400)
def test_torture(database_kind, tmp_path):
    """
    Two replicas that are killed, paused and cut off from database and volume lose nothing and do nothing twice.
    """
    done = subprocess.run(
        [sys.executable, COMMAND, "--database", database_kind, "--seconds", "20", "--seed", "1", "--folder", tmp_path],
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "lost: 0; done twice after success: 0; stuck: 0; unexplained: 0" in done.stdout
