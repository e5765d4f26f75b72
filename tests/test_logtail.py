"""Reading the log back: the last lines, the lines that come next, and the ones somebody asked for."""

import json
import logging

import pytest

from inbox.core.logging import JSONFormatter, LogContext, TextFormatter
from inbox.core.rotation import SharedRotatingFileHandler
from inbox.service.logtail import LogFilter, follow, read_lines, render_text, select

ENTRIES = [
    {"n": 1, "level": "INFO", "batch_id": "abc", "doc_id": "d1", "member_path": "docs/report.pdf"},
    {"n": 2, "level": "DEBUG", "batch_id": "abd", "file_id": "d2", "file_name": "a[1].txt"},
    {"n": 3, "level": "ERROR", "correlation_id": "0123456789ab"},
    {"n": 4, "level": "WARNING"},
]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "worker.log"


def append(path, *lines):
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def steps(*actions):
    """Return a `wait` that does one action each time nothing is left to read, and stops after the last."""
    left = iter(actions)

    def wait():
        action = next(left, None)
        if action is not None:
            action()
        return action is not None

    return wait


def rotate(path, *lines):
    backups = sorted(path.parent.glob(f"{path.name}.*"), reverse=True)
    for backup in backups:
        number = int(backup.suffix[1:])
        backup.rename(f"{path}.{number + 1}")
    path.rename(f"{path}.1")
    append(path, *lines)


@pytest.mark.parametrize(
    ("last", "expected"),
    [(0, []), (1, ["6"]), (2, ["5", "6"]), (3, ["4", "5", "6"]), (99, list("123456")), (None, list("123456"))],
)
def test_last_lines_reach_into_the_backups(log, last, expected):
    """
    The last lines come in the order written, from as many rotated files as it takes.
    """
    append(log, "1", "2")
    rotate(log, "3", "4")
    rotate(log, "5", "6")

    assert expected == list(read_lines(log, last=last))


def test_last_lines_longer_than_a_block(log):
    """
    Lines longer than one read are still whole, and a last one without newline counts.
    """
    long = "ä" * 100_000
    append(log, "first", long, long)
    log.write_bytes(log.read_bytes() + b"end\xff")

    assert [long, "end\\xff"] == list(read_lines(log, last=2))


def test_no_log_yet(log):
    """
    A log that does not exist, not even its folder, has no lines.
    """
    assert [] == list(read_lines(log, last=5))
    assert [] == list(read_lines(log.parent / "gone" / "worker.log", last=None))


def test_last_lines_of_a_long_file(log):
    """
    When the current file has enough lines, its end is all that shows up.
    """
    append(log, "old")
    rotate(log, *map(str, range(10_000)))

    assert ["9998", "9999"] == list(read_lines(log, last=2))


def test_only_the_newline_ends_a_line(log):
    """
    Separators that other programs take for line ends do not split a line.
    """
    append(log, "a\u2028b\x0bc\rd")

    assert ["a\u2028b\x0bc\rd"] == list(read_lines(log, last=None))


def test_following_yields_whole_lines_only(log):
    """
    A line still being written appears once it is complete.
    """
    append(log, "old")

    def half():
        log.write_text("old\nne")

    def other_half():
        log.write_text("old\nnew\n")

    assert ["new"] == list(follow(log, wait=steps(half, other_half)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["new"]),
        ({"last": 2}, ["2", "3", "new"]),
        ({"last": 9}, ["1", "2", "3", "new"]),
        ({"from_end": False}, ["3", "new"]),
    ],
)
def test_following_starts_where_asked(log, options, expected):
    """
    Following starts at the end, some lines before it, or at the beginning of the current file.
    """
    append(log, "1", "2")
    rotate(log, "3")

    assert expected == list(follow(log, wait=steps(lambda: append(log, "new")), **options))


def test_following_crosses_rotation(log):
    """
    What was written before the rename, after it, and through several rotations at once is all shown, in order.
    """
    append(log, "old")

    def twice():
        append(log, "1")
        rotate(log, "2")
        rotate(log, "3")

    def late():
        append(log.with_name("worker.log.1"), "late")
        append(log, "4")

    lines = list(follow(log, wait=steps(twice, late, lambda: rotate(log, "5"))))

    assert ["1", "2", "3", "late", "4", "5"] == lines


def test_following_waits_for_the_file(log):
    """
    A log that does not exist yet is shown from its first line, and so is one that was removed and begun again.
    """
    waiting = steps(lambda: None, lambda: append(log, "1"), log.unlink, lambda: append(log, "2"))

    assert ["1", "2"] == list(follow(log, wait=waiting))


def test_following_survives_truncation(log):
    """
    A file emptied in place is read from its beginning again.
    """
    append(log, "a long first line")

    def empty():
        log.write_text("new\n")

    assert ["new", "more"] == list(follow(log, wait=steps(empty, lambda: append(log, "more"))))


def test_following_a_real_log(log):
    """
    Every line of the rotating handler passes by, however often it rotates between two looks.
    """
    handler = SharedRotatingFileHandler(log, max_bytes=200, backups=50)
    numbers = iter(range(100))

    def write():
        for _ in range(20):
            handler.handle(logging.makeLogRecord({"msg": f"line {next(numbers)}"}))

    seen = list(follow(log, wait=steps(*[write] * 5)))
    handler.close()

    assert [f"line {number}" for number in range(100)] == seen


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (LogFilter(), [1, 2, 3, 4]),
        (LogFilter(batch="ab"), [1, 2]),
        (LogFilter(batch="abc"), [1]),
        (LogFilter(batch="0123"), [3]),
        (LogFilter(batch="0123456789abcdef"), [3]),
        (LogFilter(file="d"), [1, 2]),
        (LogFilter(file="d2"), [2]),
        (LogFilter(file="report"), [1]),
        (LogFilter(file="docs/*.pdf"), [1]),
        (LogFilter(file="a[1]"), [2]),
        (LogFilter(level="warning"), [3, 4]),
        (LogFilter(batch="ab", level="INFO"), [1]),
    ],
)
def test_filter_on_json(wanted, expected):
    """
    Batch and ids match by their start, names by a part or a glob, the level is the least one; all must hold.
    """
    lines = [json.dumps(entry) for entry in ENTRIES]

    assert expected == [entry["n"] for entry in select(lines, wanted)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (LogFilter(), [0, 1, 2, 3, 4]),
        (LogFilter(batch="ab"), [0, 1, 2]),
        (LogFilter(file="report"), [0]),
        (LogFilter(file="member_path=*.txt"), [3]),
        (LogFilter(level="ERROR"), [1, 2]),
    ],
)
def test_filter_on_text(wanted, expected):
    """
    Text lines are judged by what stands in them, and a traceback goes with its line.
    """
    lines = [
        "2026-01-31 12:00:00.123 INFO  done  batch_id=abc member_path=report.pdf",
        "2026-01-31 12:00:00.123 ERROR failed  batch_id=abd",
        "    Traceback (most recent call last):",
        "2026-01-31 12:00:00.123 INFO  done  member_path=b.txt",
        '{"not": json',
    ]

    assert expected == [lines.index(line) for line in select(lines, wanted)]


def test_rendering_matches_the_text_format():
    """
    A JSON line rendered for people reads as if it had been written as text, traceback and hostile names included.
    """
    fields = {"created": 1769860800.5, "msecs": 123.0, "levelname": "ERROR", "msg": "bad\x1b[31m \udcff", "size": 7}
    error = ValueError("to http://u:p@h\n2026-01-31")
    record = logging.makeLogRecord({**fields, "exc_info": (type(error), error, None)})
    with LogContext(logging.getLogger(), batch_id="0123456789abcdef", name_="a\nb"):
        as_json, as_text = JSONFormatter().format(record), TextFormatter().format(record)

    assert as_text == render_text(json.loads(as_json))
    assert r"2026-01-31 12:00:00.123 ERROR bad\x1b[31m \udcff  batch_id=0123456789abcdef" in as_text


@pytest.mark.parametrize("entry", [{}, {"message": None, "level": 3, "timestamp": [1], "\n": {"a": "\x1b"}}])
def test_rendering_takes_any_entry(entry):
    """
    An entry that inbox did not write is shown too, on one line.
    """
    assert render_text(entry).isprintable()


def test_lines_that_only_look_like_json_stay_text():
    """
    Broken, nested or foreign JSON is passed on as the line it is.
    """
    lines = ['{"a": ', "[1]", "{" * 3, '{"a":' * 100_000]

    assert lines == list(select(lines, LogFilter()))
