"""Programs of the machine itself copy, move and stream into the uploads."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from delivering import finish, payload, run, running, taken_once


def test_cp(witness, uploads, tmp_path):
    """
    What cp copies is taken once, whole.
    """
    one = payload("cp", member_bytes=400_000)
    run("cp", one.write_to(tmp_path / "cp.zip"), uploads)

    assert taken_once(one) == witness.account("cp.zip")


def test_cp_that_keeps_the_times(witness, uploads, tmp_path):
    """
    An archive that keeps its old times is taken once, whole.
    """
    one = payload("cp -p")
    source = one.write_to(tmp_path / "cp-p.zip")
    os.utime(source, (10**9, 10**9))
    run("cp", "-p", source, uploads)

    assert taken_once(one) == witness.account("cp-p.zip")


def test_mv_within_the_file_system(witness, uploads, tmp_path):
    """
    What mv renames into the uploads is taken once, whole.
    """
    one = payload("mv")
    run("mv", one.write_to(uploads.parent / "mv.zip"), uploads)

    assert taken_once(one) == witness.account("mv.zip")


def test_mv_from_another_file_system(witness, uploads):
    """
    What mv has to copy, since it comes from another file system, is taken once, whole.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == uploads.stat().st_dev:
        pytest.skip("there is no second file system")
    one = payload("mv across", member_bytes=400_000)
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        run("mv", one.write_to(Path(folder) / "mv-across.zip"), uploads)

    assert taken_once(one) == witness.account("mv-across.zip")


def test_dd_that_pauses(witness, uploads):
    """
    What dd writes with pauses longer than the quiet time, holding the file open, is taken once, whole.
    """
    one = payload("dd")
    with running("dd", f"of={uploads / 'dd.zip'}", "bs=64K", stdin=subprocess.PIPE, bufsize=0) as dd:
        witness.deliver("dd.zip", one.pieces(), dd.stdin.write)
        dd.stdin.close()
        finish(dd)

    assert taken_once(one) == witness.account("dd.zip")


def test_whole_drop_that_is_still_held_open(witness, uploads):
    """
    A drop whose last byte is written and that its writer goes on holding open is taken once.
    """
    one = payload("held open")
    with (uploads / "held.zip").open("wb") as file:
        file.write(one.data)
        file.flush()
        witness.pause("held.zip", 0)

    assert taken_once(one) == witness.account("held.zip")


def test_shell_that_appends(witness, uploads, tmp_path):
    """
    What a shell's `>>` adds in rounds, closing the file each time, is taken once, whole.
    """
    one = payload("append")
    source, path = tmp_path / "piece", uploads / "append.zip"

    def write(piece):
        source.write_bytes(piece)
        run("sh", "-c", 'cat "$0" >> "$1"', source, path)

    witness.deliver("append.zip", one.pieces(), write)

    assert taken_once(one) == witness.account("append.zip")


def test_pipe_into_the_uploads(witness, uploads, tmp_path):
    """
    What a pipeline with a slow source writes is taken once, whole.
    """
    one = payload("pipe")
    source, path = one.write_to(tmp_path / "source"), uploads / "pipe.zip"
    script = 'exec > "$1"; head -c 1000000 "$0"; read go < "$2"; tail -c +1000001 "$0"'
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with running("sh", "-c", script, source, path, gate) as shell:
        witness.wait_until_some_is_there(path.name, one, 1_000_000)
        witness.pause("pipe.zip", 0)
        gate.write_text("go\n")
        finish(shell)

    assert taken_once(one) == witness.account("pipe.zip")
