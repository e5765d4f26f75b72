"""Log lines: their shape, and their context."""

import asyncio
import io
import json
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbox.core.logging import JSONFormatter, LogContext, TextFormatter, current_context, mask_secrets, setup_logger

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))


@dataclass
class Settings:
    log_file_path: Path | None = None
    log_level: str = "INFO"
    log_format: str = "json"


class Unprintable:
    def __str__(self):
        raise RuntimeError("no")


class Written:
    """A logger of its own, and what it wrote."""

    def __init__(self, formatter):
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        self.logger = logging.Logger("written", logging.DEBUG)  # noqa: LOG001 - private, so that tests do not meet
        self.logger.addHandler(handler)

    @property
    def lines(self):
        return self.stream.getvalue().removesuffix("\n").split("\n")

    @property
    def entry(self):
        (line,) = self.lines
        return json.loads(line, parse_constant=pytest.fail)


@pytest.fixture
def as_json():
    return Written(JSONFormatter())


@pytest.fixture
def as_text():
    return Written(TextFormatter())


@pytest.fixture
def name(request):
    yield request.node.name
    logger = logging.getLogger(request.node.name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def test_context_is_on_the_line(name, tmp_path, capsys):
    """
    A line inside a context carries its fields, on the console and in the file alike.
    """
    logger = setup_logger(name, Settings(tmp_path / "logs" / "worker.log"))
    with LogContext(logger, batch_id="batch_123", file_id="doc_456"):
        logger.info("Processing file")
    console = capsys.readouterr().out
    entry = json.loads(console)

    assert {"message": "Processing file", "batch_id": "batch_123", "file_id": "doc_456"}.items() <= entry.items()
    assert {"level": "INFO", "logger": name}.items() <= entry.items()
    assert console == (tmp_path / "logs" / "worker.log").read_text()


def test_setup_twice_writes_once(name, tmp_path, capsys):
    """
    Setting a logger up again replaces its handlers, closes the old ones and doubles no line.
    """
    first = setup_logger(name, Settings(tmp_path / "a.log"))
    first.info("one")
    earlier = list(first.handlers)
    second = setup_logger(name, Settings(tmp_path / "b.log", log_format="text", log_level="warning"))
    second.warning("two")
    second.info("three")

    assert first is second
    assert not set(earlier) & set(second.handlers)
    assert ["one"] == [json.loads(line)["message"] for line in (tmp_path / "a.log").read_text().splitlines()]
    assert 1 == (tmp_path / "b.log").read_text().count("two")
    assert 2 == len(capsys.readouterr().out.splitlines())


def test_children_inherit_and_nothing_goes_further(name, capsys, caplog):
    """
    A child logger writes through its parent's handlers, and the root logger hears nothing.
    """
    setup_logger(name, Settings())
    logging.getLogger(f"{name}.child").info("hello")

    assert f"{name}.child" == json.loads(capsys.readouterr().out)["logger"]
    assert [] == caplog.records


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO(), encoding="ascii"), io.StringIO()])
def test_console_in_trouble_is_no_trouble(name, monkeypatch, capsys, stream):
    """
    A console that is missing, closed or narrow-minded about characters neither raises nor complains.
    """
    logger = setup_logger(name, Settings(log_format="text"))
    monkeypatch.setattr("sys.stdout", stream)
    logger.info("größer")
    if stream is not None:
        stream.close()
        logger.info("größer")

    assert "" == capsys.readouterr().err


def test_contexts_nest(as_json):
    """
    The inner context wins while it lasts, and the outer one is back afterwards, also after an exception.
    """
    with LogContext(as_json.logger, batch_id="a", run_id="r"):
        with suppress(ZeroDivisionError), LogContext(as_json.logger, batch_id="b"):
            as_json.logger.info("inner")
            raise ZeroDivisionError
        as_json.logger.info("outer")
        inside = dict(current_context())
    inner, outer = map(json.loads, as_json.lines)

    assert ("b", "r") == (inner["batch_id"], inner["run_id"])
    assert "a" == outer["batch_id"]
    assert {"batch_id": "a", "run_id": "r"} == inside
    assert {} == current_context()


def test_context_belongs_to_its_task():
    """
    Tasks that overlap keep their own context, and a new thread starts with none.
    """
    seen = {}

    async def work(number, met):
        with LogContext(logging.getLogger(), task=number):
            await met.wait()
            seen[number] = dict(current_context())

    async def main():
        met = asyncio.Barrier(2)
        await asyncio.gather(work(1, met), work(2, met))

    asyncio.run(main())
    with LogContext(logging.getLogger(), task="main"):
        thread = threading.Thread(target=lambda: seen.update(thread=dict(current_context())))
        thread.start()
        thread.join()

    assert {1: {"task": 1}, 2: {"task": 2}, "thread": {}} == seen


def test_json_line_has_its_keys():
    """
    The time is UTC with milliseconds, fields come after the message, and none of them can hide the first four keys.
    """
    record = logging.makeLogRecord({"created": 1769860800.5, "msecs": 123.0, "msg": "hi", "level": 1, "size": 7})
    entry = json.loads(JSONFormatter().format(record))

    assert "2026-01-31T12:00:00.123Z" == entry["timestamp"]
    assert ["timestamp", "level", "logger", "message", "level_", "size"] == list(entry)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"batch_id": "0123456789abcdef"}, "0123456789ab"),
        ({"batch_id": "0123456789abcdef", "correlation_id": "mine"}, "mine"),
        ({"file_id": "x"}, None),
    ],
)
def test_correlation_id(as_json, context, expected):
    """
    The context's own correlation id comes first, then the start of the batch id.
    """
    with LogContext(as_json.logger, **context):
        as_json.logger.info("hi")

    assert expected == as_json.entry.get("correlation_id")


def test_odd_values_do_not_lose_the_line(as_json):
    """
    Whatever is handed in, one line of valid JSON comes out.
    """
    circle = {}
    circle["self"] = circle
    odd = {
        "raw": b"a\xff",
        "group": {"b", "a"},
        "error": OSError("gone"),
        "path": Path("/x"),
        "when": datetime(2026, 1, 31, tzinfo=UTC),
        "surrogate": "a\udcff",
        "nul": "\0",
        "keys": {(1, 2): "x", 3: "y"},
        "nan": float("nan"),
        "long": 10**5000,
        "bad": Unprintable(),
        "circle": circle,
    }
    as_json.logger.info("file %d", "not a number", extra=odd)
    entry = as_json.entry

    assert "file %d not a number" == entry["message"]
    assert ("a\\xff", ["a", "b"], "OSError: gone", "/x") == tuple(
        entry[key] for key in ("raw", "group", "error", "path")
    )
    assert ("2026-01-31T00:00:00+00:00", "a\\udcff", "\0") == (entry["when"], entry["surrogate"], entry["nul"])
    assert ({"(1, 2)": "x", "3": "y"}, "nan") == (entry["keys"], entry["nan"])
    assert "<unprintable Unprintable>" == entry["bad"]


@settings(derandomize=True, deadline=None)
@given(message=ANY_TEXT, key=ANY_TEXT, value=ANY_TEXT | st.binary() | st.floats() | st.integers())
def test_any_text_is_one_line(message, key, value):
    """
    No message, field name or value can start a second line or bring a control character, in either format.
    """
    record = logging.makeLogRecord({"msg": message, "fields": {key: value}, "value": value})
    json_line, text = JSONFormatter().format(record), TextFormatter().format(record)
    json.loads(json_line)

    assert json_line.isprintable()
    assert text.isprintable()


def test_text_line(as_text):
    """
    A text line is time, level, message and fields; hostile names stay on it, and a traceback follows indented.
    """
    error = ValueError("x\n2026-01-31 12:00:00.123 INFO  forged\x1b[0m")
    with LogContext(as_text.logger, batch_id="b", name_="a\n\x1b[31m b"):
        as_text.logger.error("bad \u202e name", exc_info=error)
    head, *trace = as_text.lines

    assert r'ERROR bad \u202e name  batch_id=b name_="a\n\u001b[31m b"' == head[24:]
    assert all(line.startswith("    ") for line in trace)
    assert r"    2026-01-31 12:00:00.123 INFO  forged\x1b[0m" == trace[-1]


def test_exception_stays_on_the_json_line(as_json):
    """
    A traceback is the field `exception` of its line, with passwords masked.
    """
    as_json.logger.error("no database", exc_info=ConnectionError("postgresql://inbox:s3cret@db/inbox"))

    assert as_json.entry["exception"].endswith("ConnectionError: postgresql://inbox:***@db/inbox")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to postgresql+psycopg2://u:p@h:5432/d now", "to postgresql+psycopg2://u:***@h:5432/d now"),
        ("redis://:p@h", "redis://:***@h"),
        ("smtp://me@x.org:p@h", "smtp://me@x.org:***@h"),
        ("http://u:p@ss/w:o@h/x", "http://u:***@h/x"),
        ("amqp://u:p1@h1,amqp://u:p2@h2", "amqp://u:***@h1,amqp://u:***@h2"),
        ("http://h:80/a@b http://[::1]:80/a@b http://h:80 a@b", "http://h:80/a@b http://[::1]:80/a@b http://h:80 a@b"),
    ],
)
def test_passwords_are_masked(as_json, as_text, text, expected):
    """
    The password of anything that looks like a URL is masked in messages and values, and other URLs are left alone.
    """
    for written in (as_json, as_text):
        written.logger.info(text, extra={"url": {"nested": [text]}})

    assert expected == mask_secrets(text)
    assert (expected, {"nested": [expected]}) == (as_json.entry["message"], as_json.entry["url"])
    assert 2 == as_text.lines[0].count(expected)
