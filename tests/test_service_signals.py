"""Signals to the service and to its workers: asked twice, asked all at once, and too late."""

import os
import signal
import subprocess
import sys

import pytest
from processes import Storage, wait_for

NOTING_ITS_END = """
import atexit, multiprocessing, signal
from pathlib import Path
from inbox import handler

def note():
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    Path("held").write_text(" ".join(sorted(signal.Signals(number).name for number in held)))

if multiprocessing.parent_process():
    atexit.register(note)

@handler
def take(file):
    return {}
"""


@pytest.fixture
def shared(tmp_path, database_url):
    return Storage(tmp_path / "shared", database_url, HANDLERS="handlers_for_processes")


def test_signal_at_the_end_of_a_worker_is_no_death(shared):
    """
    A worker that ends holds signals back, since the interpreter's end forgets what they mean and would die of one.
    """
    shared.base.parent.joinpath("noting.py").write_text(NOTING_ITS_END)
    with shared.service(HANDLERS="noting", WORKER_PROCESSES=1) as service:
        shared.drop("a.zip", ["ok.txt"])
        shared.wait_for_receipt("a.zip")
        status = service.terminate()

    assert 0 == status
    assert "SIGINT SIGTERM" == shared.base.parent.joinpath("held").read_text()


def test_second_signal_ends_at_once(shared):
    """
    A second signal does not wait for the work in hand, unless it comes together with the first.
    """
    with shared.service() as service:
        shared.drop("a.zip", ["hang.txt"])
        wait_for(shared.calls)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: service.events("ServiceStopping"))
        wait_for(lambda: service.process.send_signal(signal.SIGTERM) or service.process.poll(), "the end")
        status = service.process.wait(10)

    assert -signal.SIGTERM == status


SLEEPING_THREADS = """
import threading, time
from inbox.app.stopping import Stop

def sleep_on():
    while True:
        time.sleep(0.001)

for _ in range(6):
    threading.Thread(target=sleep_on, daemon=True).start()
stop = Stop()
print("ready", flush=True)
stop.wait()
print(stop.reason)
"""


def test_signal_to_a_stopped_process_is_heard_when_it_goes_on():
    """
    A signal that another thread receives, as happens when a process was stopped, wakes the waiting main thread.
    """
    said = []
    for _ in range(5):  # which thread gets it is the kernel's choice
        with subprocess.Popen([sys.executable, "-c", SLEEPING_THREADS], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            try:
                said.append(process.communicate(timeout=20)[0])
            finally:
                process.kill()

    assert ["SIGTERM\n"] * 5 == said


def test_signal_that_is_sent_twice_is_one():
    """
    A signal that reaches the process alone and as one of its group, as timeout(1) sends it, asks for an orderly end.
    """
    twice = "stop = Stop(); raise_signal(SIGTERM); raise_signal(SIGTERM); print(stop.reason)"
    done = subprocess.run(
        [sys.executable, "-c", f"from signal import *; from inbox.app.stopping import Stop; {twice}"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "SIGTERM\n") == (done.returncode, done.stdout)
