"""A worker whose handler is broken: what it claims, hands out and gives back meanwhile, on both databases."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from databases import LIFE, fill_batch

from inbox.core.errors import ParseError, RateLimitError, RetryableError
from inbox.database import postponing, work
from inbox.database.leasing import open_tokens
from inbox.database.operations import get_batch_files
from inbox.events import BreakerClosed, BreakerOpened
from inbox.handlers.base import File, HandlerSpec
from inbox.handlers.registry import Registry
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.link import IDLE
from inbox.pipeline.dispatching.reports import Pauses, closed_report, is_report, opened_report
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.worker import Worker, WorkerPlan

FILE = File(Path("/x"), "a.txt", "a.txt", "text", 1, "0" * 64, "d1", "b1", "r1", 1)
SIZE = 10


class TimedLink:
    """The supervisor's end, played by the test: time passes while the worker waits, and it drains when all is done."""

    def __init__(self, house, *, lasting=200.0):
        self.house = house
        self.pauses = Pauses(house.clock, house.events.append)
        self.waits = []
        self.draining = False
        self.ends_at = house.clock.ticks + lasting
        self.last = b""
        self.on_wait = lambda: None

    def say(self, word):
        self.last = word
        if is_report(word):
            self.pauses.hear("me", word)

    def require_whole(self):
        """Nothing of a handler's can close this end."""

    def wait(self, seconds):
        self.waits.append(seconds)
        self.on_wait()
        self.house.clock.go_on(seconds)
        files = get_batch_files("b1")
        at_rest = all(file.processing_completed_at for file in files)
        self.draining = self.house.clock.ticks > self.ends_at or (self.last == IDLE and at_rest)


class Endpoint:
    """A handler that is down between two moments, and counts what it is asked."""

    def __init__(self, house, *, down=0.0, up=1e9, error=RetryableError):
        self.house, self.error = house, error
        self.down, self.up = house.clock.ticks + down, house.clock.ticks + up
        self.calls = []
        self.attempts = Counter()

    def __call__(self, file):
        self.calls.append((self.house.clock.ticks, file.doc_id, file.attempt))
        self.attempts[file.doc_id] += 1
        if self.down <= self.house.clock.ticks < self.up:
            raise self.error(f"no answer to {file.doc_id}")


def make_worker(house, tmp_path, link, *specs, outcomes=SIZE):
    return Worker(
        WorkerPlan(0, "me/w0.1", LIFE, timedelta(seconds=30), breaker_outcomes=outcomes),
        sessions=house.sessions,
        slots=Slots(tmp_path / "slots", count=1),
        link=link,
        attempting=Attempting(Registry(specs), house.clock, 3, 2.0),
        prepare=lambda claimed: replace(
            FILE,
            doc_id=claimed.doc_id,
            member_path=claimed.member_path,
            name=claimed.member_path.rpartition("/")[2],
            attempt=claimed.attempt,
        ),
        clock=house.clock,
        emit=house.events.append,
    )


def states(batch_id="b1"):
    return Counter(file.status for file in get_batch_files(batch_id))


def test_outage_costs_no_file_its_attempts(house, tmp_path):
    """
    While the endpoint is down a few probes are all it sees; when it is back every file succeeds in its first attempt.
    """
    fill_batch("b1", 60, now=house.clock.now())
    link, endpoint = TimedLink(house), Endpoint(house, up=40.0)
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint)).run()
    while_down = [call for call in endpoint.calls if call[0] < endpoint.up]
    files = get_batch_files("b1")
    with house.sessions.reading() as session:
        tokens = open_tokens(session=session)

    assert {"success": 60} == states()
    assert {0} == {file.retry_count for file in files}
    assert SIZE + 4 <= len(while_down) <= SIZE + 5  # after 1, 3 to 4, 7 to 10, 15 to 22, 31 to 46 seconds
    assert {1} == {attempt for *_, attempt in endpoint.calls}
    assert set() == tokens
    (opened,), (closed,) = house.heard(BreakerOpened), house.heard(BreakerClosed)
    assert ("http", SIZE, 1.0) == (opened.handler, opened.failures, opened.wait_seconds)
    assert "RETRYABLE: no answer to" in opened.cause
    assert ("http", len(while_down) - SIZE + 1) == (closed.handler, closed.probes)
    assert closed.seconds >= 40  # rounded


def test_few_files_that_find_out_together_pay_nothing(house, tmp_path):
    """
    Files that fail several times each before it is plain that the handler is broken get all of these attempts back.
    """
    fill_batch("b1", SIZE // 2, now=house.clock.now())
    endpoint = Endpoint(house, up=60.0)
    make_worker(house, tmp_path, TimedLink(house), HandlerSpec("http", endpoint)).run()

    assert {1, 2} == {attempt for ticks, _, attempt in endpoint.calls if ticks < endpoint.up}
    assert [("success", 0)] * (SIZE // 2) == [(file.status, file.retry_count) for file in get_batch_files("b1")]


def test_outage_that_changes_its_face_costs_no_attempts(house, tmp_path):
    """
    Whatever else an endpoint says while it is down, a probe that may be tried again is not counted.
    """
    fill_batch("b1", SIZE, now=house.clock.now())
    words = iter(["busy", "starting", "no route", "late", "refused"])

    def handler(file):
        calls.append(file.attempt)
        if len(calls) <= SIZE or (word := next(words, None)):
            raise RetryableError("down" if len(calls) <= SIZE else word)

    calls = []
    make_worker(house, tmp_path, TimedLink(house), HandlerSpec("http", handler)).run()

    assert {1} == set(calls)
    assert {"success": SIZE} == states()
    assert 6 == len(house.heard(BreakerOpened))


def test_each_probe_is_another_file(house, tmp_path):
    """
    The file that was a probe waits behind the others, so that none is everybody's probe.
    """
    fill_batch("b1", 20, now=house.clock.now())
    link, endpoint = TimedLink(house), Endpoint(house)
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint)).run()
    probes = [doc_id for _, doc_id, _ in endpoint.calls[SIZE:]]

    assert 7 <= len(probes)
    assert len(probes) == len(set(probes))
    assert {"pending": 20} == states()
    assert link.draining


def test_paused_worker_claims_nothing(house, tmp_path, monkeypatch):
    """
    Where one handler gets every file, a claim is one file, and there is one for each probe.
    """
    fill_batch("b1", 500, now=house.clock.now())
    claims, claim = [], work.claim_files

    def claim_files(*arguments, limit, **options):
        claims.append(limit)
        return claim(*arguments, limit=limit, **options)

    monkeypatch.setattr(work, "claim_files", claim_files)
    link, endpoint = TimedLink(house), Endpoint(house)
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint)).run()
    probes = len(endpoint.calls) - SIZE

    assert [1] * probes == claims[-probes:]
    assert len(link.waits) <= probes + 2


def test_other_handlers_go_on(house, tmp_path, monkeypatch):
    """
    Files of another handler are not delayed, and those of the paused one cost one statement for a page and probe.
    """
    now = house.clock.now()
    fill_batch("b1", 400, now=now)
    statements, give_back = [], postponing.put_off

    def put_off(files, *, session):
        statements.append(len(files))
        return give_back(files, session=session)

    monkeypatch.setattr(postponing, "put_off", put_off)
    link, endpoint = TimedLink(house), Endpoint(house)
    began, done = house.clock.ticks, []
    even = tuple(f"*{digit}.txt" for digit in "02468")
    make_worker(
        house,
        tmp_path,
        link,
        HandlerSpec("broken", endpoint, even),
        HandlerSpec("well", lambda file: done.append(house.clock.ticks)),
    ).run()
    probes = len(endpoint.calls) - SIZE

    assert {"success": 200, "pending": 200} == states()
    assert {began} == set(done)
    assert 7 <= probes <= 9
    assert len(statements) <= 2 * probes + 5  # pages grow at first; later the last probe comes behind the others
    assert len(link.waits) <= 2 * probes + 5
    assert ["broken"] == list(link.pauses.reasons())


def test_long_wish_for_patience_puts_files_off_again_and_again(house, tmp_path):
    """
    A server that asks for an hour gets it, but no file is put off for so long that it would pass for a clock's mistake.
    """
    fill_batch("b1", 30, now=house.clock.now())
    endpoint = Endpoint(house, error=lambda message: RateLimitError(message, retry_after=3600))
    link = TimedLink(house, lasting=5)
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint)).run()
    longest = max(file.due_at for file in get_batch_files("b1")) - house.clock.now()

    assert 3600 < link.waits[0] < 3601
    assert timedelta(seconds=121) > longest + timedelta(seconds=link.waits[0])
    assert 0 == house.rescuer.bring_back()


def test_encrypted_documents_are_no_outage(house, tmp_path):
    """
    Any number of files that cannot be read fail, each for itself, and nothing is paused.
    """
    fill_batch("b1", 100, now=house.clock.now())
    link = TimedLink(house)
    make_worker(house, tmp_path, link, HandlerSpec("documents", Endpoint(house, error=ParseError))).run()

    assert {"failed": 100} == states()
    assert [] == house.heard(BreakerOpened)


def test_broken_library_fails_few(house, tmp_path):
    """
    A failure that is final at once fails those files that were needed to see it; the rest waits.
    """
    fill_batch("b1", 100, now=house.clock.now())
    link = TimedLink(house)
    make_worker(house, tmp_path, link, HandlerSpec("python", Endpoint(house, error=ImportError))).run()

    assert {"failed": SIZE, "pending": 100 - SIZE} == states()


def test_switched_off_breaker_pauses_nothing(house, tmp_path):
    """
    Without outcomes to look at, every file has its attempts and fails.
    """
    fill_batch("b1", 30, now=house.clock.now())
    link, endpoint = TimedLink(house), Endpoint(house)
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint), outcomes=0).run()

    assert {"failed": 30} == states()
    assert {3} == set(endpoint.attempts.values())


def test_paused_worker_drains_at_once(house, tmp_path):
    """
    Told to drain while it waits for the next probe, a worker ends, without another call and holding nothing.
    """
    fill_batch("b1", 30, now=house.clock.now())
    link, endpoint = TimedLink(house, lasting=0.5), Endpoint(house)
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint)).run()
    with house.sessions.reading() as session:
        tokens = open_tokens(session=session)

    assert (SIZE, 1) == (len(endpoint.calls), len(link.waits))
    assert ({"pending": 30}, set()) == (states(), tokens)


def test_attempts_are_taken_back_from_those_that_wait(house):
    """
    A refund reaches files that wait for another attempt: none that somebody has claimed since, or that has ended.
    """
    now = house.clock.now()
    waiting, again, claimed, ended = fill_batch("b1", 4, now=now)
    house.clock.go_on(100)
    later = house.clock.now() + timedelta(seconds=9)
    with house.sessions.writing() as session:
        page = work.claim_files("me", limit=4, now=now, life=LIFE, session=session)
    outcomes = [retrying(house, page.token, doc_id) for doc_id in (waiting, again, claimed)]
    with house.sessions.writing() as session:
        work.record_outcomes([*outcomes, failed(house, page.token, ended)], session=session)
        session.execute(work.update(work.FILES).where(work.FILES.c.doc_id == again).values(retry_count=2))
        session.execute(
            work.update(work.FILES).where(work.FILES.c.doc_id == claimed).values(status="processing", retry_count=1)
        )
    with house.sessions.writing() as session:
        refunded = postponing.refund_attempts(
            [(doc_id, later) for doc_id in (waiting, again, claimed, ended)], session=session
        )
    files = {file.doc_id: (file.status, file.retry_count, file.due_at == later) for file in get_batch_files("b1")}

    assert 2 == refunded
    assert {
        waiting: ("pending", 0, True),
        again: ("retrying", 1, True),
        claimed: ("processing", 1, False),
        ended: ("failed", 0, False),
    } == files


def test_files_are_put_off_under_their_token_alone(house):
    """
    Who has lost the lease meanwhile changes nothing by giving the file back.
    """
    now = house.clock.now()
    ours, lost = fill_batch("b1", 2, now=now)
    later = now + timedelta(seconds=9)
    with house.sessions.writing() as session:
        page = work.claim_files("me", limit=2, now=now, life=LIFE, session=session)
        count = postponing.put_off([(ours, page.token, later), (lost, "another", later)], session=session)

    assert 1 == count
    assert [("pending", 0, later), ("processing", 0, now)] == [
        (file.status, file.retry_count, file.due_at) for file in get_batch_files("b1")
    ]


def retrying(house, token, doc_id):
    return replace(failed(house, token, doc_id), state="retrying", due_at=house.clock.now())


def failed(house, token, doc_id):
    return work.Outcome(doc_id, token, "failed", house.clock.now(), 1, error_type="RETRYABLE", error_message="no")


def test_service_says_each_pause_and_cause_once(house):
    """
    However many workers pause a handler, its causes are told once each, and the end when the last one goes on.
    """
    pauses = Pauses(house.clock, house.events.append)

    def opened(cause, number):
        return opened_report("http", cause, f"{cause} {number}", failures=5, wait_seconds=1.0)

    for number, owner in enumerate(["w0", "w1", "w2"]):
        pauses.hear(owner, opened("refused", number))
    pauses.hear("w0", opened("busy", 3))
    during = pauses.reasons()
    house.clock.go_on(7)
    pauses.hear("w0", closed_report("http", 3))
    pauses.hear("w1", closed_report("http", 2))
    pauses.forget("w2")

    assert ["refused 0", "busy 3"] == [event.cause for event in house.heard(BreakerOpened)]
    assert ({"http": "busy 3"}, {}) == (during, pauses.reasons())
    assert [BreakerClosed("http", 7.0, 3)] == house.heard(BreakerClosed)


def test_pause_ends_with_the_last_worker_that_knew_of_it(house):
    """
    Workers that die take their breakers with them: with the last of them nothing is paused.
    """
    pauses = Pauses(house.clock, house.events.append)
    for owner in ("w0", "w1"):
        pauses.hear(owner, opened_report("http", "down", "it is down", failures=5, wait_seconds=1.0))
    pauses.forget("w0")
    still = pauses.reasons()
    pauses.forget("w1")

    assert ({"http": "it is down"}, {}) == (still, pauses.reasons())
    assert [BreakerClosed("http", 0.0, 0)] == house.heard(BreakerClosed)


def test_pause_is_over_when_nothing_waits(house, tmp_path):
    """
    A pause that no file is left to end, since all have come to rest meanwhile, ends by itself.
    """
    fill_batch("b1", 30, now=house.clock.now())
    link = TimedLink(house)

    def run_out_of_time():
        with house.sessions.writing() as session:
            work.fail_unfinished_files(
                "b1", error_type="TIMEOUT", message="too late", now=house.clock.now(), session=session
            )

    link.on_wait = run_out_of_time
    make_worker(house, tmp_path, link, HandlerSpec("http", Endpoint(house))).run()

    assert ({}, {"failed": 30}) == (link.pauses.reasons(), states())
    assert ["http"] == [event.handler for event in house.heard(BreakerClosed)]


def test_word_of_another_worker_ends_the_pause(house, tmp_path):
    """
    A paused worker that hears that the handler works again goes on, without waiting for a probe of its own.
    """
    fill_batch("b1", 30, now=house.clock.now())
    link, endpoint = TimedLink(house), Endpoint(house, up=1.0)
    link.on_wait = lambda: link.on_recovered("http")
    make_worker(house, tmp_path, link, HandlerSpec("http", endpoint)).run()

    assert {"success": 30} == states()
    assert [] == house.heard(BreakerClosed)
