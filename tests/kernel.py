"""The kernel in a test: limits lowered and folders mounted where nobody else notices, and queues that overflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LIMITS = Path("/proc/sys/fs/inotify")


def within(script: str = "") -> list[str]:
    """Return the command that runs what stands behind it as root of new namespaces, after this shell script."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


def require(script: str = "") -> None:
    """Skip the test where the system grants no such namespaces, or does not let this script run in them."""
    try:
        done = subprocess.run([*within(script), "true"], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode:
        pytest.skip(f"no namespaces of one's own: {done.stderr.strip()}")


def told_within(program: str, *arguments: object, script: str = "") -> dict:
    """Run a Python program in new namespaces and return the JSON object that it prints."""
    require(script)
    done = subprocess.run(
        [*within(script), sys.executable, "-c", program, *map(str, arguments)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


def overflow(folder: Path) -> None:
    """Make more happen in a folder than the kernel keeps for somebody who does not read."""
    most = int((LIMITS / "max_queued_events").read_text())
    if most > 200_000:
        pytest.skip(f"the queue holds {most} events: too many for a test")
    (folder / ".one.part").write_text("x")
    for _ in range(most // 2 + 100):
        os.link(folder / ".one.part", folder / ".two.part")
        (folder / ".two.part").unlink()
