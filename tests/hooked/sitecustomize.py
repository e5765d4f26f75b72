"""
What unpackers of a test do beside their work: a drop's name says what, and at which step.

`kill.reading.zip` ends its process by SIGKILL whenever it is read, `kill-once.extracted.zip` the first time between
publishing and registering. On the path of a process it is found by Python itself.
"""

import os
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ.get("TEST_HOOKS", "/nonexistent"))


def is_first(name: str) -> bool:
    """Say whether this is the first time; the mark outlives the process."""
    try:
        (FOLDER / f"{name}.met").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def name_of(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name


def act(name: str, step: str, should_stop=lambda: False) -> None:
    verb, wanted, *_ = [*name.split("."), ""]
    verb, _, once = verb.partition("-")
    if wanted != step or (once == "once" and not is_first(name)):
        return
    (FOLDER / f"{name}.{step}").touch()
    if verb == "kill":
        os.kill(os.getpid(), 9)
    elif verb == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif verb == "hang":  # with the interpreter's lock in hand, as code in C that hears nothing
        import ctypes

        ctypes.PyDLL(None).sleep(600)
    elif verb == "slow":
        while not (FOLDER / "go").exists() and not should_stop():
            time.sleep(0.01)


def hook_unpacker() -> None:
    from inbox.pipeline import extracting
    from inbox.pipeline.registering import Registrar
    from inbox.pipeline.runner import taking, unpacking

    identify, extract = taking.identify, unpacking.extract
    extract_members, register = extracting.extract_members, Registrar.register

    def identify_and_act(fd, **options):
        act(name_of(fd), "reading", options["should_stop"])
        return identify(fd, **options)

    def extract_and_act(fd, drop, *arguments, **options):
        act(drop.name, "extracting", options["should_stop"])
        return extract(fd, drop, *arguments, **options)

    def write_and_act(fd, *arguments, **options):
        act(name_of(fd), "writing")
        return extract_members(fd, *arguments, **options)

    def act_and_register(self, lease, extraction):
        act(lease.drop_name, "extracted")
        return register(self, lease, extraction)

    taking.identify, unpacking.extract = identify_and_act, extract_and_act
    extracting.extract_members, Registrar.register = write_and_act, act_and_register


def hook_service() -> None:
    limit = os.environ.get("TEST_LIMIT_SECONDS")
    if limit:
        from inbox.pipeline.unpackers.supervising import UnpackerPlan

        UnpackerPlan.limit_seconds = property(lambda _plan: float(limit))


if "--multiprocessing-fork" in sys.orig_argv:
    hook_unpacker()
elif "inbox" in sys.orig_argv:
    hook_service()
