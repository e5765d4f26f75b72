"""Folding: many lines with one cause become one with their number, and no event goes uncounted."""

import threading
from collections import Counter

import pytest
from pipeline_parts import Clock

from inbox import events
from inbox.service.folding import Folding, cause_of
from inbox.utils.clock import SystemClock


def failed(number=0, *, batch_id="b1", error_type="PARSE_ERROR", error=None):
    path = f"docs/report-{number}.pdf"
    return events.AttemptFailed(batch_id, f"d{number}", path, 1, 5, error_type, error or f"cannot be read: {path}")


def succeeded(number, *, batch_id="b1"):
    return events.AttemptSucceeded(batch_id, f"d{number}", f"{number}.txt", 1, 5)


class Log:
    """What was told, and a folding without its thread, on a clock that the test moves."""

    def __init__(self, same_cause=3):
        self.told = []
        self.clock = Clock()
        self.folding = Folding(self.told.append, self.clock, same_cause=same_cause, by="worker 7")

    def take_in(self, told):
        for event in told:
            self.folding(event)

    def kinds(self):
        return Counter(type(event).__name__ for event in self.told)

    def end(self):
        self.folding.__exit__(None, None, None)

    def total(self):
        return sum(event.times if isinstance(event, events.Folded) else 1 for event in self.told)


def test_first_lines_of_a_cause_are_told_in_full_and_the_rest_in_one():
    """
    Up to the number that is set each failure has its line; the others are one line with count, time, cause and example.
    """
    log = Log()
    log.take_in([failed(0), failed(1), failed(2)])
    log.clock.go_on(12)
    log.take_in([failed(number) for number in range(3, 415)])
    before = list(log.told)
    log.clock.go_on(48)
    log.folding.tell_ended()

    assert [failed(0), failed(1), failed(2)] == before
    assert [
        events.AttemptsFailed(
            times=412,
            seconds=60.0,
            by="worker 7",
            batch_id="b1",
            member_path="docs/report-414.pdf",
            error_type="PARSE_ERROR",
            error="cannot be read: docs/report-414.pdf",
        )
    ] == log.told[3:]


def test_each_cause_is_counted_by_itself():
    """
    Causes that come in turn, other types and other messages have their own first lines and their own numbers.
    """
    log = Log(same_cause=2)
    for number in range(10):
        log.take_in([failed(number), failed(number, error_type="TIMEOUT"), failed(number, error="no such page")])
    log.end()

    assert {"AttemptFailed": 6, "AttemptsFailed": 3} == log.kinds()
    assert [8, 8, 8] == [event.times for event in log.told if isinstance(event, events.Folded)]


@pytest.mark.parametrize(
    "make",
    [
        failed,
        succeeded,
        lambda number: events.AttemptSkipped("b1", f"d{number}", f"{number}.txt", 1, 5, "UNREADABLE_TYPE"),
        lambda number: events.AttemptToRepeat("b1", f"d{number}", f"{number}.txt", 1, 5, "TIMEOUT", "late", 2.0),
        lambda number: events.OutcomeLost("b1", f"d{number}", 1),
    ],
    ids=["failed", "succeeded", "skipped", "to repeat", "lost"],
)
def test_every_kind_is_folded_and_none_goes_uncounted(make):
    """
    What has lines of its own and what is counted add up to what happened, minute after minute and at the end.
    """
    log = Log(same_cause=1)
    for _minute in range(3):
        log.take_in(make(number) for number in range(50))
        log.clock.go_on(60)
    log.take_in(make(number) for number in range(50))
    log.end()

    assert 200 == log.total()
    assert 4 == sum(isinstance(event, events.Folded) for event in log.told)


def test_successes_are_folded_for_each_batch():
    """
    Of one batch ten times as many successes are told in full, then one line a minute; a small batch beside it has all.
    """
    log = Log(same_cause=10)
    log.take_in(succeeded(number) for number in range(41_310))
    log.take_in(succeeded(number, batch_id="b2") for number in range(100))
    log.end()

    assert {"AttemptSucceeded": 200, "AttemptsSucceeded": 1} == log.kinds()
    assert [(41_210, "b1")] == [(e.times, e.batch_id) for e in log.told if isinstance(e, events.Folded)]


def test_what_happens_once_is_never_folded():
    """
    Events about batches, workers and the service pass as they are, however many.
    """
    log = Log(same_cause=1)
    log.take_in([events.FilesReleased(1)] * 20)

    assert [events.FilesReleased(1)] * 20 == log.told


def test_nothing_is_folded_where_that_is_set():
    """
    With 0 every event has its line.
    """
    log = Log(same_cause=0)
    with log.folding:
        log.take_in([failed(number) for number in range(500)])

    assert 500 == len(log.told)


def test_events_after_the_end_have_their_lines():
    """
    What happens when the numbers have been told for the last time is told in full.
    """
    log = Log(same_cause=1)
    log.take_in([failed(0), failed(1)])
    log.end()
    log.take_in([failed(2), failed(3)])

    assert {"AttemptFailed": 3, "AttemptsFailed": 1} == log.kinds()


def test_causes_without_end_are_told_in_full():
    """
    Where every message is another, memory stays bounded: past a thousand causes a minute each line is written.
    """
    log = Log(same_cause=1)
    words = ["".join(chr(97 + int(digit)) for digit in str(number)) for number in range(3000)]
    log.take_in(failed(error=f"no {word}") for word in words for _ in range(2))
    log.end()

    assert len(log.folding._groups) == 0
    assert 6000 == log.total()
    assert 5000 == log.kinds()["AttemptFailed"]


def test_number_is_told_when_nothing_more_happens():
    """
    A thread tells the number when the time is over, without a further event.
    """
    told = threading.Event()

    def tell(event):
        if isinstance(event, events.AttemptsFailed):
            told.set()

    with Folding(tell, SystemClock(), same_cause=1, by="worker 1", folded_seconds=0.05) as folding:
        for number in range(5):
            folding(failed(number))

        assert told.wait(30)


def test_event_that_comes_while_nothing_is_waited_for_is_noticed():
    """
    A number is told also when the first event of its cause comes just as the thread has found nothing to wait for.
    """
    told, begun = threading.Event(), []

    class Interrupted(Folding):
        def tell_ended(self):
            seconds = super().tell_ended()
            if not begun:
                begun.append(threading.Thread(target=lambda: [self(failed(number)) for number in range(5)]))
                begun[0].start()
                begun[0].join(0.2)  # as far as it gets
            return seconds

    def tell(event):
        if isinstance(event, events.AttemptsFailed):
            told.set()

    with Interrupted(tell, SystemClock(), same_cause=1, by="worker 1", folded_seconds=0.3):
        assert told.wait(5)


def test_threads_do_not_lose_a_count():
    """
    Called by several threads, everything is told or counted once.
    """
    log = Log(same_cause=5)
    threads = [threading.Thread(target=log.take_in, args=([failed(n) for n in range(500)],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.end()

    assert 2000 == log.total()
    assert {"AttemptFailed": 5, "AttemptsFailed": 1} == log.kinds()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("page 3 of 17 is damaged", "page 12 of 20 is damaged"),
        ("no glyph 'a' in font \"X\"", "no glyph 'ß' in font \"Long Name\""),
        ("[Errno 2] No such file: /data/extracted/ab12/x.txt", "[Errno 2] No such file: /data/extracted/99/y/z.txt"),
        ("HTTP 500 from the handler: 0xdeadbeef00", "HTTP 503 from the handler: 0x0badc0ffee"),
        ("cannot be read:\n  docs/a b.pdf", "cannot be read: docs/c d e.pdf"),
        ("a b.pdf is encrypted", "c d e.pdf is encrypted"),
    ],
)
def test_cause_is_what_messages_share(one, other):
    """
    Numbers, quoted parts, paths and the member's own name do not make another cause.
    """
    assert cause_of(one, "docs/a b.pdf") == cause_of(other, "docs/c d e.pdf")


def test_other_words_are_another_cause():
    """
    Messages that say something else are told apart, however long.
    """
    assert cause_of("the page is damaged") != cause_of("the font is damaged")
    assert len(cause_of("x" * 100_000)) <= 300
