"""The supervisor of the worker processes, on processes the test plays: who is woken, replaced, killed and charged."""

import os
import signal
import threading
from datetime import timedelta
from itertools import pairwise
from multiprocessing import Pipe

import pytest
from pipeline_parts import Clock
from played_processes import FakeProcess

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError
from inbox.events import TroubleBegan, WorkerDied
from inbox.pipeline.dispatching.link import DRAIN, IDLE, PROGRESS, READY, TROUBLE, WAKE
from inbox.pipeline.dispatching.slots import Slots
from inbox.pipeline.dispatching.supervising import Supervision, Supervisor

TIMEOUT = 300.0


class Crew:
    """A supervisor, the processes it has started, and what it did about the dead."""

    def __init__(self, folder, workers=1):
        self.clock = Clock()
        self.slots = Slots(folder / "slots", count=workers)
        self.started = []
        self.settled = []
        self.events = []
        self.refusals = []
        self.on_spawn = lambda: None
        self.supervisor = Supervisor(
            plan=Supervision(workers, "me", timedelta(seconds=TIMEOUT)),
            spawn=self.spawn,
            settle=self.settle,
            slots=self.slots,
            clock=self.clock,
            emit=self.events.append,
        )

    def spawn(self, slot, owner):
        self.on_spawn()
        ours, theirs = Pipe()
        process = FakeProcess()
        self.started.append((owner, process, theirs))
        return process, ours

    def settle(self, owner, *, in_hand, error):
        if self.refusals:
            raise self.refusals.pop()
        self.settled.append((owner, [hand.doc_id for hand in in_hand], str(error.error_type)))

    def say(self, word, worker=-1):
        self.started[worker][2].send_bytes(word)

    def heard(self, worker=-1):
        """Return what the worker has been told and not read yet."""
        theirs, words = self.started[worker][2], []
        while theirs.poll():
            words.append(theirs.recv_bytes())
        return words

    def round(self):
        """One turn of the loop; nothing is waited for, since something has always happened."""
        self.supervisor.turn(longest=0.0)

    def end(self):
        for _, process, theirs in self.started:
            process.end(0)
            theirs.close()
        self.supervisor.drain()
        self.supervisor.run()
        for _, process, _ in self.started:
            os.close(process.sentinel)
        self.slots.close()


@pytest.fixture
def crew(tmp_path):
    made = Crew(tmp_path)
    made.round()
    yield made
    made.end()


def process_of(crew, worker=-1):
    return crew.started[worker][1]


def test_seats_are_filled(tmp_path):
    """
    Every seat gets a worker under a name of its own, and all is well when each has said that it is ready.
    """
    crew = Crew(tmp_path, workers=2)
    crew.round()
    before = crew.supervisor.is_healthy()
    for worker in (0, 1):
        crew.say(READY, worker)
    crew.round()

    assert ["me/w0.1", "me/w1.1"] == crew.supervisor.owners()
    assert (False, True) == (before, crew.supervisor.is_healthy())
    crew.end()


def test_idle_worker_is_woken(crew):
    """
    A worker that has nothing to do hears of every wake-up after it said so.
    """
    crew.say(IDLE)
    crew.round()
    before = crew.heard()
    crew.supervisor.wake()

    assert ([], [WAKE]) == (before, crew.heard())


def test_wake_up_is_not_missed(crew):
    """
    A worker that looked in vain just before a wake-up hears of it as soon as its word of being idle arrives.
    """
    crew.supervisor.wake()
    before = crew.heard()
    crew.say(IDLE)
    crew.round()

    assert ([], [WAKE]) == (before, crew.heard())


def test_worker_that_does_not_listen_holds_nobody_up(crew):
    """
    However often workers are woken, one that answers nothing is sent no more than its connection can take.
    """
    crew.say(IDLE)
    crew.round()
    waking = threading.Thread(target=lambda: [crew.supervisor.wake() for _ in range(5000)], daemon=True)
    waking.start()
    waking.join(10)

    assert not waking.is_alive()
    assert [WAKE] == crew.heard()


@pytest.mark.parametrize(("stopped", "left"), [("in a handler", ["me/w0.1"]), ("after it", []), ("between", [])])
def test_no_heart_beats_for_a_worker_that_was_stopped_between_two_files(crew, stopped, left):
    """
    One without a word is left out in the end, also while the outcome of its last file is not recorded; only a file that
    its handler still has, whose time is limited, keeps it in.
    """
    crew.say(READY)
    crew.round()
    if stopped != "between":
        crew.slots.take(0, "t" * 32, "d1", crew.clock.monotonic())
    if stopped == "after it":
        crew.slots.stop_clock(0)
    crew.round()
    before = crew.supervisor.owners()
    crew.clock.go_on(61)
    crew.round()

    assert (["me/w0.1"], left) == (before, crew.supervisor.owners())


def test_trouble_is_told_until_it_is_over(crew):
    """
    A worker that waits for the database makes the crew unhealthy until its next word.
    """
    crew.say(TROUBLE)
    crew.round()
    troubled = crew.supervisor.is_healthy()
    crew.say(PROGRESS)
    crew.round()

    assert (False, True) == (troubled, crew.supervisor.is_healthy())


def test_dead_workers_file_is_charged_alone(crew):
    """
    Of all that a dead worker held, the file in hand is charged, and its seat is taken again at once.
    """
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    process_of(crew).end(-signal.SIGSEGV)
    crew.round()
    crew.round()

    assert [("me/w0.1", ["d1"], "RETRYABLE")] == crew.settled
    assert [WorkerDied(0, -signal.SIGSEGV, "d1", "the worker process ended by SIGSEGV")] == crew.events
    assert ["me/w0.2"] == crew.supervisor.owners()
    assert crew.slots.read(0) is None


def test_handler_that_ends_the_process_in_good_order_is_charged(crew):
    """
    An exit code of 0 is no excuse for a worker with a file in hand.
    """
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    process_of(crew).end(0)
    crew.round()

    assert [("me/w0.1", ["d1"], "RETRYABLE")] == crew.settled


def test_deadline_kill_is_a_timeout(crew):
    """
    A handler past its time is killed, not before, and its file is charged with TIMEOUT.
    """
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    crew.clock.go_on(TIMEOUT)
    crew.round()
    before = process_of(crew).is_alive()
    crew.clock.go_on(0.1)
    crew.round()

    assert before
    assert [("me/w0.1", ["d1"], "TIMEOUT")] == crew.settled


def test_file_after_the_overdue_one_is_innocent(crew):
    """
    When the overdue handler ended in the very moment of the kill, the next file in hand is not charged for it.
    """
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    process_of(crew).before_death = lambda: crew.slots.take(0, "t", "d2", crew.clock.monotonic())
    crew.clock.go_on(TIMEOUT + 1)
    crew.round()

    assert [("me/w0.1", [], "TIMEOUT")] == crew.settled


@pytest.mark.parametrize("is_framed", [True, False])
def test_what_a_handler_writes_into_the_connection_ends_its_worker(crew, is_framed):
    """
    Words that cannot be read cost the file in hand an attempt, and do not end or hold up the supervision.
    """
    crew.slots.take(0, "t" * 32, "guilty", crew.clock.monotonic())
    if is_framed:
        crew.say(b"{ not a report")
    else:
        os.write(crew.started[-1][2].fileno(), b"hello, whoever you are")
    crew.round()
    crew.round()

    assert not process_of(crew, 0).is_alive()
    assert [("me/w0.1", ["guilty"], "RETRYABLE")] == crew.settled


def test_worker_that_gets_nowhere_is_restarted_with_backoff(crew):
    """
    A worker that ends without a file in hand, again and again, is started less and less often.
    """
    starts = []
    for _ in range(100):
        if process_of(crew).is_alive():
            starts.append(crew.clock.monotonic())
            crew.say(READY)
            crew.round()
            process_of(crew).end(1)
        crew.clock.go_on(0.25)
        crew.round()
    waits = [later - sooner for sooner, later in pairwise(starts)]

    assert waits == sorted(waits)
    assert (True, True) == (waits[0] < 1, waits[-1] > 4)


def test_progress_ends_the_backoff(crew):
    """
    A worker that got something done is replaced as soon as the first one.
    """
    for _ in range(6):
        process_of(crew).end(1)
        crew.round()
        crew.clock.go_on(60)
        crew.round()
    crew.say(PROGRESS)
    crew.round()
    process_of(crew).end(1)
    crew.round()
    crew.clock.go_on(0.6)
    crew.round()

    assert process_of(crew).is_alive()


def test_machine_without_room_for_a_process_is_waited_for(crew):
    """
    When no process can be started that is told, and tried again with backoff.
    """

    def no_room():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    process_of(crew).end(1)
    crew.round()
    crew.clock.go_on(60)
    crew.on_spawn = no_room
    crew.round()
    crew.on_spawn = lambda: None
    crew.clock.go_on(60)
    crew.round()

    assert ["worker 0"] == [event.leg for event in crew.events if isinstance(event, TroubleBegan)]
    assert process_of(crew).is_alive()


@pytest.mark.parametrize("error", [DatabaseUnavailableError("gone"), DatabaseRefusedError("no table")])
def test_debts_wait_for_the_database(crew, error):
    """
    What a dead worker held is decided about as soon as the database does its part.
    """
    crew.refusals.append(error)
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    process_of(crew).end(3)
    crew.round()
    before = list(crew.settled)
    crew.round()

    assert [] == before
    assert [("me/w0.1", ["d1"], "RETRYABLE")] == crew.settled


def test_draining_ends_with_the_last_worker(tmp_path):
    """
    Told to drain, every worker hears of it, ended ones are not replaced, and the loop ends with the last of them.
    """
    crew = Crew(tmp_path, workers=2)
    crew.round()
    crew.supervisor.drain()
    words = [crew.heard(worker) for worker in (0, 1)]
    for worker in (0, 1):
        process_of(crew, worker).end(0)
    crew.supervisor.run()

    assert [[DRAIN], [DRAIN]] == words
    assert [] == crew.events
    assert 2 == len(crew.started)
    crew.end()


def test_worker_in_the_making_drains_too(tmp_path):
    """
    A worker that is being started while the service is told to stop hears of it.
    """
    crew = Crew(tmp_path)
    crew.on_spawn = crew.supervisor.drain
    crew.round()

    assert [DRAIN] == crew.heard()
    crew.end()


def test_shutdown_is_not_an_attempt(crew):
    """
    What is killed because the grace period is over goes back uncounted.
    """
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    crew.supervisor.drain()
    crew.supervisor.kill()
    crew.round()

    assert [("me/w0.1", [], "RETRYABLE")] == crew.settled


def test_poison_is_charged_while_draining(crew):
    """
    A file that kills its worker while the service stops is charged all the same.
    """
    crew.slots.take(0, "t", "d1", crew.clock.monotonic())
    crew.supervisor.drain()
    process_of(crew).end(-signal.SIGSEGV)
    crew.round()

    assert [("me/w0.1", ["d1"], "RETRYABLE")] == crew.settled
