"""How events read in the log: one line each, with its name and fields beside the text."""

import json
import logging
from dataclasses import fields
from io import StringIO
from types import SimpleNamespace

import pytest

from inbox import events
from inbox.core.logging import setup_logger
from inbox.service.narrating import described, narrator

KINDS = sorted(
    {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type)
        and issubclass(kind, events.Event)
        and kind not in {events.Event, events.AttemptEvent, events.Folded}
    },
    key=lambda kind: kind.__name__,
)


def sample(kind):
    values = {str: "text\x1b[2J", int: 7, float: 1.5}
    return kind(**{field.name: values[field.type] for field in fields(kind)})


@pytest.fixture
def log():
    """Return a function that narrates an event in a format and returns the line."""

    def narrate(event, log_format="json", level="DEBUG"):
        stream = StringIO()
        settings = SimpleNamespace(log_level=level, log_format=log_format, log_file_path=None)
        narrator(setup_logger("inbox.test-narrating", settings, console=stream))(event)
        return stream.getvalue()

    return narrate


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_is_one_line_with_its_fields(log, kind):
    """
    Each kind of event has a wording, and its name and fields stand in the JSON line.
    """
    event = sample(kind)
    line = log(event)
    told = json.loads(line)

    assert 1 == line.count("\n")
    assert kind.__name__ == told["event"]
    assert described(event).items() <= told.items()
    assert told["message"]
    assert ("correlation_id" in told) == hasattr(event, "batch_id")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_is_one_harmless_line_for_people(log, kind):
    """
    In the format for people nothing in a name can start a line or steer a terminal.
    """
    line = log(sample(kind), "text")

    assert 1 == line.count("\n")
    assert "\x1b" not in line


def test_level_decides_what_is_written(log):
    """
    Below the level that is set nothing is written.
    """
    assert "" == log(sample(events.BatchClaimed), level="WARNING")
    assert log(sample(events.BatchRefused), level="WARNING")
    assert logging.getLogger("inbox.test-narrating").level == logging.WARNING
