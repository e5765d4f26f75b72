"""rsync, on this machine: whole, in place, partial, killed and resumed."""

import signal

import pytest
from delivering import NOT_TAKEN, kill, need, payload, run, running, taken_once

SLOW = "--bwlimit=2000"  # KiB/s


@pytest.fixture(autouse=True)
def _rsync():
    need("rsync")


@pytest.mark.parametrize("option", ["--whole-file", "--inplace", "--preallocate", "--sparse", "--delay-updates"])
def test_rsync(witness, uploads, tmp_path, option):
    """
    In whatever way rsync writes, what it delivers is taken once, whole.
    """
    name = f"rsync{option}.zip"
    one = payload(name)
    run("rsync", "--archive", option, one.write_to(tmp_path / name), f"{uploads}/")

    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--whole-file"], ["--inplace"], ["--inplace", "--preallocate"]], ids=" ".join)
def test_rsync_that_is_slow(witness, uploads, tmp_path, options):
    """
    What rsync delivers slowly is taken once, whole.
    """
    name = f"slow-rsync{''.join(options)}.zip"
    one = payload(name)
    run("rsync", "--archive", SLOW, *options, one.write_to(tmp_path / name), f"{uploads}/")

    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
def test_rsync_killed_and_repeated(witness, uploads, tmp_path):
    """
    The hidden file that a killed rsync leaves is never taken; the drop of the next rsync is, once.
    """
    name = "killed-rsync.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    with running("rsync", "--archive", SLOW, source, f"{uploads}/") as rsync:
        left = witness.wait_until_some_is_there(f".{name}.*", one)
        kill(rsync)
    witness.wait_for_a_later_drop("after-killed-rsync.zip")
    before = witness.judgements(left.name)
    run("rsync", "--archive", source, f"{uploads}/")

    assert NOT_TAKEN == before
    assert taken_once(one) == witness.account(name)
    assert left.exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--inplace"], ["--inplace", "--preallocate"], ["--append-verify"]], ids=" ".join)
def test_rsync_in_place_killed_and_resumed(witness, uploads, tmp_path, options):
    """
    What a killed rsync wrote in place waits under the drop's own name, and is taken once when rsync has resumed it.
    """
    name = f"killed-rsync{''.join(options)}.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    with running("rsync", "--archive", SLOW, *options, source, f"{uploads}/") as rsync:
        witness.wait_until_some_is_there(name, one)
        kill(rsync)
    witness.wait_until_left_waiting(name)
    run("rsync", "--archive", *options, source, f"{uploads}/")

    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
@pytest.mark.parametrize("partial", ["--partial", "--partial-dir=.rsync-partial", "--partial-dir=rsync-partial"])
def test_rsync_interrupted_and_resumed(witness, uploads, tmp_path, partial):
    """
    The partial file that an interrupted rsync keeps, wherever it keeps it, is not taken; the resumed drop is, once.
    """
    name = f"interrupted-{partial.replace('=', '-')}.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    with running("rsync", "--archive", SLOW, partial, source, f"{uploads}/") as rsync:
        witness.wait_until_some_is_there(f".{name}.*", one)
        kill(rsync, signal.SIGTERM)
    folder = partial.partition("=")[2]
    witness.wait_until_some_is_there(f"{folder}/{name}" if folder else name, one)
    witness.wait_for_a_later_drop(f"after-{name}")
    before = witness.judgements(name)
    run("rsync", "--archive", partial, source, f"{uploads}/")

    assert NOT_TAKEN == before
    assert taken_once(one) == witness.account(name)


@pytest.mark.parametrize("options", [[], ["--inplace"]], ids=["renamed", "in place"])
def test_rsync_of_a_second_version(witness, uploads, tmp_path, options):
    """
    A second archive that rsync delivers under the name of one that was taken is taken too, each once.
    """
    name = f"versions-rsync{''.join(options)}.zip"
    first, second = payload(f"{name} 1"), payload(f"{name} 2")
    source = first.write_to(tmp_path / name)
    run("rsync", "--archive", *options, source, f"{uploads}/")
    witness.account(name)
    second.write_to(source)
    run("rsync", "--archive", *options, source, f"{uploads}/")

    assert taken_once(first, second) == witness.account(name, times=2)
