"""Handlers that do harm to the process they run in, each by the file's name."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from inbox import File, handler

SLEEPER = ["sleep", "600"]


def by_signal_to_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segmentation_fault() -> None:
    ctypes.string_at(0)


def immediate_exit() -> None:
    os._exit(0)


def stack_overflow() -> None:
    sys.setrecursionlimit(10**9)
    threading.stack_size(256 * 1024)

    class Deep:
        def __repr__(self) -> str:
            return repr(self)

    down = threading.Thread(target=repr, args=(Deep(),))
    down.start()
    down.join()


def out_of_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    bytearray(4 << 30)


def closed_descriptors() -> None:
    os.closerange(3, 4096)


def exit_in_a_thread() -> None:
    ending = threading.Thread(target=sys.exit)
    ending.start()
    ending.join()


def fork_that_returns() -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)


def fork_that_dies() -> None:
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.waitpid(child, 0)


def kill_of_the_service() -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def kill_of_the_service_while_busy() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def hold_the_interpreter() -> None:
    """Block in C with the lock of the interpreter held: PyDLL does not let go of it."""
    ctypes.PyDLL(None).sleep(600)


def leave_a_daemon() -> None:
    """Start one process in the group, one in a group of its own, one that also outlives its parent; then hang."""
    _note(subprocess.Popen(SLEEPER).pid)
    _note(subprocess.Popen(SLEEPER, start_new_session=True).pid)
    daemon = ["setsid", "sh", "-c", '"$@" >/dev/null 2>&1 & echo $!', "sh", *SLEEPER]
    _note(int(subprocess.run(daemon, capture_output=True, text=True, check=True).stdout))
    time.sleep(600)


def leave_a_daemon_and_die() -> None:
    _note(subprocess.Popen(SLEEPER, start_new_session=True).pid)
    segmentation_fault()


def _note(pid: int) -> None:
    with Path(os.environ["TEST_CHILD"]).open("a") as noted:
        noted.write(f"{pid}\n")


HARM = {
    function.__name__: function
    for function in (
        by_signal_to_itself,
        segmentation_fault,
        immediate_exit,
        stack_overflow,
        out_of_memory,
        closed_descriptors,
        exit_in_a_thread,
        fork_that_returns,
        fork_that_dies,
        kill_of_the_service,
        kill_of_the_service_while_busy,
        hold_the_interpreter,
        leave_a_daemon,
        leave_a_daemon_and_die,
    )
}


@handler
def by_name(file: File) -> dict[str, object]:
    with Path(os.environ["TEST_CALLS"]).open("a") as calls:
        calls.write(f"{file.doc_id} {file.member_path} {file.attempt}\n")
    HARM.get(file.name.partition(".")[0], int)()
    return {"attempt": file.attempt}
