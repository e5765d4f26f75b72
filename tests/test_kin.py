"""What a process has started is found and killed, wherever it went."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

from inbox.utils.kin import MARK, kill_kin, mark_what_is_started

SLEEPING = ["sleep", "600"]
LEAVING = ["setsid", "sh", "-c", '"$@" >/dev/null 2>&1 & echo $!', "sh", *SLEEPING]


@pytest.fixture
def start():
    """Return a function that starts a process, which is killed and buried at the end of the test."""
    started = []

    def start(*command, **options):
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_group_is_kin(start):
    """
    Everything in the group that a process led is killed, also when that process has ended.
    """
    leader = start("sh", "-c", "sleep 600 >/dev/null & echo $!", stdout=subprocess.PIPE, text=True, process_group=0)
    child = int(leader.stdout.readline())
    leader.wait()

    assert 1 == kill_kin(leader.pid, "nobody")
    wait_for(lambda: not Path(f"/proc/{child}/exe").exists(), "its end")


def test_whoever_left_the_group_is_kin_while_the_process_lives(start):
    """
    A grandchild with a session of its own is found below the process.
    """
    program = (
        "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); print(1, flush=True); input()"
    )
    parent = start(sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parent.stdout.readline()

    assert 1 == kill_kin(parent.pid, "nobody")
    assert parent.poll() is None
    parent.stdin.close()


def test_whoever_outlived_its_parent_is_kin_by_its_mark(start):
    """
    A daemon with neither group nor parent in common is found by the mark that it inherited.
    """
    marked = {**os.environ, MARK: "me/w0.1"}
    daemon = int(subprocess.run(LEAVING, env=marked, capture_output=True, text=True, check=True).stdout)
    found = kill_kin(2**22 - 1, "somebody else"), kill_kin(2**22 - 1, "me/w0.1")

    assert (0, 1) == found
    wait_for(lambda: not Path(f"/proc/{daemon}/exe").exists(), "its end")


def test_mark_is_what_programs_inherit(monkeypatch):
    """
    Programs started after the marking carry the mark, this process does not pay for it.
    """
    monkeypatch.setenv(MARK, "")
    mark_what_is_started("me/w0.2")
    child = subprocess.Popen(SLEEPING)

    assert 1 == kill_kin(2**22 - 1, "me/w0.2")
    assert -9 == child.wait()
