"""Handlers that worker processes of the tests import: each does, by the file's name, what its name says."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from inbox import File, ParseError, RetryableError, handler


@handler
def by_name(file: File) -> dict[str, object]:
    """Note the call in a file beside the test's storage, then do what the member's name says."""
    log = os.environ.get("TEST_CALLS")
    if log:
        with Path(log).open("a") as calls:
            calls.write(f"{file.doc_id} {file.member_path} {file.attempt}\n")
    name = file.name.partition(".")[0].partition("-")[0]
    if name == "exit":
        os._exit(3)
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(600)
    if name == "child":
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
            Path(os.environ["TEST_CHILD"]).write_text(str(child.pid))
    if name == "slow":
        threading.Event().wait(float(os.environ.get("TEST_SLOW_SECONDS", "0.5")))  # libfaketime breaks time.sleep
    if name == "print":
        print("a handler's own words")
    if name == "flaky" and file.attempt < 2:
        raise RetryableError("not yet")
    if name == "broken":
        raise ParseError("cannot be read", subject=file.member_path)
    return {"size": file.path.stat().st_size, "attempt": file.attempt}
