"""
A Python that has everything imported, and forks what would else be started afresh: the same calls, many times sooner.

    python tests/crashes/forking.py

reads a JSON object per line, `{"arguments": […], "environment": {…}, "folder": "…"}`, runs `inbox` with it in a fork of
its own, and prints the exit status, negative for a signal. Its worker and unpacker processes come from a fork server
likewise.
"""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import forkserver, popen_forkserver
from pathlib import Path
from typing import Final

from inbox.app.processes import OwnProcess

IMPORTED: Final = [
    "inbox.app.working",
    "inbox.app.unpacking",
    "inbox.app.serving",
    "inbox.handlers.documents",
    "handlers_for_processes",
    "forked_unpackers",
]


class Forking:
    """The other end of it."""

    def __init__(self, environment: dict[str, str]):
        self._environment = environment
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        if not self._process.stdout.readline():
            raise RuntimeError("it does not start")

    def run(self, *arguments: str, folder: Path, seconds: float = 60.0, **environment: str) -> int | None:
        """Run a command of inbox and return its exit status; None when it takes longer than so many seconds."""
        ask = {"arguments": arguments, "environment": self._environment | environment, "folder": str(folder)}
        self._process.stdin.write(json.dumps(ask).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        return int(self._process.stdout.readline())

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def _become(ask: dict) -> int:
    os.environ.clear()
    os.environ.update(ask["environment"])
    os.chdir(ask["folder"])
    output = os.open("output.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for fd, to in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
        os.dup2(fd, to)
    sys.argv[1:] = ask["arguments"]
    try:
        from inbox.cli import main as inbox

        inbox()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _see_to_the_fork_server() -> None:
    """A fork server whose client is killed in the middle of a word dies of it."""
    while True:
        forkserver.ensure_running()
        first = OwnProcess(target=int)
        with suppress(OSError, EOFError):
            first.start()
            first.join()
            if first.exitcode == 0:
                return


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the workers log to
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{os.environ['PYTHONPATH']}"  # of the fork server, to come
    forkserver.set_forkserver_preload(IMPORTED)
    for name in IMPORTED:
        __import__(name)
    OwnProcess._Popen = staticmethod(popen_forkserver.Popen)
    _see_to_the_fork_server()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            forkserver._forkserver.ensure_running = lambda: None  # it is running, and no child of this fork
            os._exit(_become(json.loads(line)))
        _, status = os.waitpid(child, 0)
        _see_to_the_fork_server()
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
