"""
Processes that came of another one, found so that none outlives it (proc(5); elsewhere none is found).

Kin of a process are those in the group that it leads, those below it while it lives, and those whose environment
carries its mark: a process that left the group and whose parent has ended has still inherited that. Not found is only
one that did both and was started with a cleared environment, or with none of its own (a fork that executes nothing).
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARK: Final = "INBOX_WORKER"
_PROC: Final = Path("/proc")
_MOST_SCANS: Final = 20
"""What starts others faster than they are found is not waited for without end."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    state: str
    parent: int
    group: int


def mark_what_is_started(mark: str) -> None:
    """Have every program that this process starts from now on carry the mark."""
    os.environ[MARK] = mark


def kill_kin(leader: int, mark: str) -> int:
    """Kill the kin of a process, which may have ended already; itself and the caller are spared. Returns how many."""
    killed: set[int] = set()
    for _ in range(_MOST_SCANS):
        found = _kin(leader, mark) - killed
        if not found:
            break
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
    return len(killed)


def _kin(leader: int, mark: str) -> set[int]:
    wanted = f"{MARK}={mark}".encode()
    processes = {process.pid: process for process in _processes() if process.state != "Z"}
    below: dict[int, set[int]] = {}
    for process in processes.values():
        below.setdefault(process.parent, set()).add(process.pid)
    found = {one.pid for one in processes.values() if one.group == leader or _is_marked(one.pid, wanted)}
    unseen = {leader, *found}
    while unseen:
        unseen = set().union(*(below.get(pid, ()) for pid in unseen)) - found
        found |= unseen
    return found - {leader, os.getpid()}


def _processes() -> Iterator[_Process]:
    for path in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent, group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            yield _Process(int(path.parent.name), state, int(parent), int(group))


def _is_marked(pid: int, wanted: bytes) -> bool:
    try:
        return wanted in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # somebody else's
        return False
