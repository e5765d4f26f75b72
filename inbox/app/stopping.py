"""Stopping: SIGTERM and SIGINT, heard by a service that waits for nothing else."""

import multiprocessing
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Final

_TOGETHER_SECONDS: Final = 0.5


class Stop:
    """
    SIGTERM and SIGINT ask for an orderly end; the second one ends the process at once.

    Two that come together are one: timeout(1), for example, sends its signal to the process and to the process group.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._asked_at = 0.0
        self._woken, waking = socket.socketpair()
        for end in (self._woken, waking):
            end.setblocking(False)
        self._waking = waking
        # The kernel may hand a signal to another thread, as it does when a stopped process goes on: the main one, which
        # alone runs handlers, would sleep on. A byte in a socket wakes it from wherever.
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when somebody opens a drop just while it is judged

    def is_asked(self) -> bool:
        return bool(self.reason)

    def wait(self) -> None:
        while self.pause(3600):
            pass

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until asked; False when asked."""
        if not self.is_asked():
            select.select([self._woken], [], [], seconds)
            with suppress(BlockingIOError):
                self._woken.recv(64)
        return not self.is_asked()

    def _asked(self, number: int, _frame: object) -> None:
        if self.reason and time.monotonic() - self._asked_at < _TOGETHER_SECONDS:
            return
        if self.reason:
            children = multiprocessing.active_children()
            sys.stderr.write("inbox: ended by a second signal\n")
            signal.signal(number, signal.SIG_DFL)
            sys.setswitchinterval(60)  # no other thread gets to see the children dead, and charge their files
            for child in children:
                child.kill()
            signal.raise_signal(number)
        self._asked_at = time.monotonic()
        self.reason = signal.Signals(number).name
