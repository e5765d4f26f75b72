"""Processes that a test plays, for the supervisors."""

import os
import signal


class FakeProcess:
    """A process that ends when the test says so. Its sentinel is a pipe that closes with it."""

    def __init__(self):
        self.pid = None
        self.sentinel, self._life = os.pipe()
        self.exitcode = None
        self.before_death = lambda: None

    def is_alive(self):
        return self.exitcode is None

    def end(self, code):
        if self.exitcode is None:
            self.exitcode = code
            os.close(self._life)

    def kill(self):
        self.before_death()
        self.end(-signal.SIGKILL)

    def join(self):
        pass
