"""The log file that several processes write and rotate."""

import json
import logging
import multiprocessing
import resource
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from inbox.core.logging import JSONFormatter
from inbox.core.rotation import RETRY_SECONDS, SharedRotatingFileHandler

SPAWN = multiprocessing.get_context("spawn")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shared(tmp_path, clock):
    handler = SharedRotatingFileHandler(tmp_path / "logs" / "worker.log", max_bytes=100, backups=3, clock=clock)
    yield handler
    handler.close()


def write(handler, *messages):
    for message in messages:
        handler.handle(logging.makeLogRecord({"msg": message}))


def texts(folder):
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.suffix != ".lock"}


def test_full_file_is_rotated(shared, tmp_path):
    """
    A line that does not fit opens a new file, the oldest backup goes, and an oversized line gets a file of its own.
    """
    write(shared, *(letter * 60 for letter in "abcde"), "x" * 200)
    kept = {name: text[:1] for name, text in texts(tmp_path / "logs").items()}

    assert {"worker.log": "x", "worker.log.1": "e", "worker.log.2": "d", "worker.log.3": "c"} == kept
    assert (tmp_path / "logs" / ".worker.log.lock").exists()


def test_rotation_by_somebody_else_is_followed(shared, clock, tmp_path):
    """
    After another process renamed or removed the file, lines go to the new one, whose folder is made again.
    """
    path = tmp_path / "logs" / "worker.log"
    write(shared, "one")
    path.rename(tmp_path / "logs" / "worker.log.1")
    clock.now += 1
    write(shared, "two")
    renamed = texts(tmp_path / "logs")
    shutil.rmtree(path.parent)
    clock.now += 1
    write(shared, "three")

    assert {"worker.log": "two\n", "worker.log.1": "one\n"} == renamed
    assert {"worker.log": "three\n"} == texts(tmp_path / "logs")


def test_rotation_waits_for_the_lock(shared, tmp_path):
    """
    While another process holds the lock the line goes to the full file, and the next one finds it free.
    """
    write(shared, "a" * 60)
    with FileLock(shared.lock_path):
        write(shared, "b" * 60)
    write(shared, "c" * 60)

    assert [122, 61] == sorted((len(text) for text in texts(tmp_path / "logs").values()), reverse=True)


def test_file_that_cannot_be_rotated_grows(shared, tmp_path, capsys):
    """
    When the lock cannot be made the file is written past its size, and that is said once.
    """
    Path(shared.lock_path).parent.mkdir()
    Path(shared.lock_path).mkdir()
    write(shared, *("a" * 60 for _ in range(5)))

    assert 305 == (tmp_path / "logs" / "worker.log").stat().st_size
    assert 1 == capsys.readouterr().err.count("cannot be rotated")


def test_trouble_is_told_once_and_tried_again(shared, clock, tmp_path, capsys):
    """
    A folder that cannot be had costs lines but no exception; it is told once, and tried again after a while.
    """
    in_the_way = tmp_path / "logs"
    in_the_way.write_text("")
    write(shared, "one", "two")
    clock.now += 1
    write(shared, "three")
    told = capsys.readouterr().err
    in_the_way.unlink()
    write(shared, "four")
    clock.now += RETRY_SECONDS
    write(shared, "five")

    assert 1 == told.count("cannot be written")
    assert {"worker.log": "five\n"} == texts(tmp_path / "logs")
    assert "misses 4 lines" in capsys.readouterr().err


def test_full_device(clock, capsys):
    """
    A full disk raises nothing into the caller.
    """
    handler = SharedRotatingFileHandler("/dev/full", clock=clock)
    write(handler, "one", "two")
    handler.close()

    assert 1 == capsys.readouterr().err.count("No space left on device")


def fill_the_disk(path):
    clock = Clock()
    handler = SharedRotatingFileHandler(path, clock=clock)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    write(handler, *(letter * 60 for letter in "abc"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    clock.now += RETRY_SECONDS
    write(handler, "d" * 60)


def test_no_torn_line_when_the_disk_fills_up(tmp_path, capfd):
    """
    A line of which only the start could be written is taken back, and the file goes on with whole lines.
    """
    process = SPAWN.Process(target=fill_the_disk, args=(tmp_path / "x.log",))
    process.start()
    process.join(60)

    assert 0 == process.exitcode
    assert ["a" * 60, "d" * 60] == (tmp_path / "x.log").read_text().splitlines()
    assert "misses 2 lines" in capfd.readouterr().err


def write_many(path, writer, count):
    logger = logging.Logger("many")  # noqa: LOG001 - a process of its own
    handler = SharedRotatingFileHandler(path, max_bytes=16 * 1024, backups=500)
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)
    for number in range(count):
        logger.info("line", extra={"writer": writer, "number": number})
    handler.close()


def test_several_processes_lose_and_tear_nothing(tmp_path):
    """
    Four processes that write and rotate one file leave every line there, whole, exactly once.
    """
    writers = [SPAWN.Process(target=write_many, args=(tmp_path / "x.log", writer, 3000)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
    files = texts(tmp_path)
    entries = [json.loads(line) for text in files.values() for line in text.splitlines()]

    assert [0, 0, 0, 0] == [process.exitcode for process in writers]
    assert [(writer, number) for writer in range(4) for number in range(3000)] == sorted(
        (entry["writer"], entry["number"]) for entry in entries
    )
    assert len(files) > 50
