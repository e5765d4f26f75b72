"""The supervisor of the unpackers, on processes the test plays: who gets a drop, who is replaced, killed, settled."""

import os
import pickle
import signal
from datetime import timedelta
from multiprocessing import Pipe
from pathlib import Path

import pytest
from databases import a_drop
from pipeline_parts import Clock
from played_processes import FakeProcess

from inbox.core.errors import DatabaseUnavailableError, PermanentError, StorageError
from inbox.events import BatchReleased, TroubleBegan, UnpackerDied
from inbox.pipeline.extracting import NoRoomError
from inbox.pipeline.unpackers import seats, supervising
from inbox.pipeline.unpackers.fates import Claiming, Died, Done, InTrouble, Step, Task, Untaken
from inbox.pipeline.unpackers.process import DRAIN, READY, portable
from inbox.pipeline.unpackers.seats import LARGE_BYTES, SLOW_SECONDS
from inbox.pipeline.unpackers.supervising import End, UnpackerPlan, UnpackerProcesses

LIMIT = 3630.0


class Crew:
    """A supervisor, the processes it has started, and what it did about the dead."""

    def __init__(self, unpackers=2):
        self.clock = Clock()
        self.started = []
        self.settled = []
        self.events = []
        self.refusals = []
        self.rings = 0
        self.on_spawn = lambda: None
        self.supervisor = UnpackerProcesses(
            plan=UnpackerPlan(unpackers, "me", timedelta(seconds=3600)),
            spawn=self.spawn,
            settle=self.settle,
            clock=self.clock,
            emit=self.events.append,
        )
        self.supervisor.call_when_over(self.ring)

    def ring(self):
        self.rings += 1

    def spawn(self, seat, owner):
        self.on_spawn()
        ours, theirs = Pipe()
        self.started.append((owner, FakeProcess(), theirs))
        return self.started[-1][1], ours

    def settle(self, owner, end):
        if self.refusals:
            raise self.refusals.pop()
        self.settled.append((owner, end))

    def say(self, word, unpacker=-1):
        self.started[unpacker][2].send(word)

    def heard(self, unpacker=-1):
        """Return what an unpacker has been told and not read yet."""
        theirs, words = self.started[unpacker][2], []
        while theirs.poll():
            words.append(theirs.recv())
        return words

    def process(self, unpacker=-1):
        return self.started[unpacker][1]

    def round(self):
        """One turn of the loop; nothing is waited for, since something has always happened."""
        self.supervisor.turn(longest=0.0)

    def hand(self, name="a.zip", size=10):
        handed = task(name, size)
        assert self.supervisor.has_place(handed.drop)
        self.supervisor.hand_over(handed)
        self.round()
        return handed

    def begin(self, name="a.zip", size=10, batch_id="b1"):
        """Hand a drop to the only unpacker there is, and have it begin."""
        handed = self.hand(name, size)
        self.say((Step.READING, ""))
        if batch_id:
            self.say((Step.EXTRACTING, batch_id))
        self.round()
        return handed

    def end(self):
        for _, process, theirs in self.started:
            process.end(0)
            theirs.close()
        self.supervisor.drain()
        self.supervisor.run()
        for _, process, _ in self.started:
            os.close(process.sentinel)


def task(name="a.zip", size=10):
    return Task(a_drop(name, size=size, path=Path("uploads") / name), 3.0, 1000.0)


def fits(crew, size):
    return crew.supervisor.has_place(task(size=size).drop)


@pytest.fixture
def crew():
    made = Crew()
    made.round()
    made.say(READY)
    made.round()
    yield made
    made.end()


def test_first_unpacker_is_there_and_the_others_come_when_needed(crew):
    """
    One process waits for drops from the start; the second one is started when the first has its hands full.
    """
    before = crew.supervisor.owners()
    crew.hand("a.zip")
    with_one = crew.supervisor.owners()
    crew.hand("b.zip")

    assert ["me/u0.1"] == before == with_one
    assert ["me/u0.1", "me/u1.1"] == crew.supervisor.owners()
    assert [["a.zip"], ["b.zip"]] == [[heard.drop.name for heard in crew.heard(unpacker)] for unpacker in (0, 1)]


def test_nobody_gets_a_drop_while_all_have_one(crew):
    """
    There are as many places as unpackers, and one again when a fate has come.
    """
    handed = [crew.hand("a.zip"), crew.hand("b.zip")]
    full = fits(crew, 1)
    crew.say(Done("b1"), 0)
    crew.round()

    assert (False, True) == (full, fits(crew, 1))
    assert [(handed[0], Done("b1"))] == crew.supervisor.collect()
    assert [] == crew.supervisor.collect()


@pytest.mark.parametrize("unpackers", [1, 2, 3])
def test_large_drops_leave_one_unpacker_to_the_small(unpackers):
    """
    Of several unpackers large drops have all but one at the most; a single one takes whatever comes.
    """
    crew = Crew(unpackers)
    crew.round()
    large = 0
    while fits(crew, LARGE_BYTES + 1):
        crew.hand(f"{large}.zip", LARGE_BYTES + 1)
        large += 1

    assert max(unpackers - 1, 1) == large
    assert (unpackers > 1) == fits(crew, LARGE_BYTES)
    crew.end()


def test_slow_drop_counts_as_large(crew):
    """
    A small drop that has been in hand for long keeps the other unpacker free of large ones.
    """
    crew.hand("a.zip")
    crew.clock.go_on(SLOW_SECONDS - 0.1)
    before = fits(crew, LARGE_BYTES + 1)
    crew.clock.go_on(0.1)

    assert (True, False, True) == (before, fits(crew, LARGE_BYTES + 1), fits(crew, LARGE_BYTES))


def test_what_unpackers_tell_is_told(crew):
    """
    Events of an unpacker are told by the service, in their order, and ring no bell.
    """
    event = BatchReleased("b", "a.zip", "DISK_FULL", "no room")
    rings = crew.rings
    crew.say(event)
    crew.round()

    assert [event] == crew.events
    assert rings == crew.rings


@pytest.mark.parametrize(("batch_id", "exit_code"), [("b1", -signal.SIGSEGV), ("", -signal.SIGKILL), ("b1", 0)])
def test_death_is_settled_before_it_is_told(crew, batch_id, exit_code):
    """
    What a dead unpacker held is decided about, then the drop comes back with its batch, and the seat is taken again.
    """
    handed = crew.begin(batch_id=batch_id)
    crew.process().end(exit_code)
    crew.refusals.append(DatabaseUnavailableError("gone"))
    crew.round()
    while_away = crew.supervisor.collect(), crew.supervisor.owners()
    crew.round()
    fates = crew.supervisor.collect()
    crew.clock.go_on(1)
    crew.round()

    assert ([], ["me/u0.1"]) == while_away
    assert [("me/u0.1", End.DIED)] == crew.settled
    assert [(handed, Died(batch_id or None))] == fates
    assert [(0, exit_code, "a.zip")] == [(event.unpacker, event.exit_code, event.drop) for event in crew.events]
    assert ["me/u0.2"] == crew.supervisor.owners()


def test_drop_that_was_not_begun_is_handed_back(crew):
    """
    A process that ends before it began with its drop says nothing about the drop.
    """
    handed = crew.hand()
    crew.process().end(1)
    crew.round()

    assert [(handed, Untaken())] == crew.supervisor.collect()
    assert [UnpackerDied(0, 1, "", "the process ended with exit code 1")] == crew.events


def test_fate_that_was_told_before_the_end_counts(crew):
    """
    An unpacker that ends just after it told of a drop has not died of it.
    """
    handed = crew.begin()

    def say_and_end():
        del crew.process().is_alive
        crew.say(Done("b1"))
        crew.process().end(0)
        return False

    crew.process().is_alive = say_and_end
    crew.round()

    assert [(handed, Done("b1"))] == crew.supervisor.collect()
    assert ([], []) == (crew.events, crew.settled)


@pytest.mark.parametrize("step", [Step.READING, Step.EXTRACTING])
def test_hang_is_killed_at_the_limit(crew, step):
    """
    What does not end by itself in its time and the grace is killed, not before, and settled as too slow.
    """
    crew.begin(batch_id="b1" if step is Step.EXTRACTING else "")
    crew.clock.go_on(LIMIT)
    crew.round()
    before = crew.process().is_alive()
    crew.clock.go_on(0.1)
    crew.round()

    assert before
    assert [("me/u0.1", End.TOO_SLOW)] == crew.settled
    assert ["it did not answer, and was killed after 3630 s"] == [event.reason for event in crew.events]


def test_unpacker_that_does_not_begin_is_replaced(crew):
    """
    One that was stopped before it heard of its drop keeps that from nobody for ever: it goes to another, uncharged.
    """
    handed = crew.hand()
    crew.clock.go_on(LIMIT)
    crew.round()
    before = crew.process().is_alive()
    crew.clock.go_on(0.1)
    crew.round()
    fates = crew.supervisor.collect()
    crew.clock.go_on(60)
    crew.round()

    assert before
    assert [(handed, Untaken())] == fates
    assert ["me/u0.2"] == crew.supervisor.owners()


def test_registering_has_no_limit_here(crew):
    """
    The database sets the limits of what is asked of it: a registration is not killed.
    """
    crew.begin()
    crew.say((Step.REGISTERING, "b1"))
    crew.round()
    crew.clock.go_on(LIMIT * 2)
    crew.round()

    assert crew.process().is_alive()


def test_each_step_has_the_time_for_itself(crew):
    """
    The limit runs from the last step on.
    """
    crew.begin(batch_id="")
    crew.clock.go_on(LIMIT - 1)
    crew.say((Step.EXTRACTING, "b1"))
    crew.round()
    crew.clock.go_on(LIMIT - 1)
    crew.round()

    assert crew.process().is_alive()


def test_idle_unpackers_end_but_for_the_first(crew):
    """
    An unpacker that nobody needed for a while is let go, and started again when somebody does.
    """
    for name in ("a.zip", "b.zip"):
        crew.hand(name)
    for unpacker in (0, 1):
        crew.heard(unpacker)
        crew.say(Done("b"), unpacker)
    crew.round()
    crew.clock.go_on(supervising.IDLE_SECONDS)
    crew.round()
    told = [crew.heard(unpacker) for unpacker in (0, 1)]
    crew.process(1).end(0)
    crew.round()
    after = crew.supervisor.owners()
    for name in ("c.zip", "d.zip"):
        crew.hand(name)

    assert [[], [DRAIN]] == told
    assert ["me/u0.1"] == after
    assert ["me/u0.1", "me/u1.2"] == crew.supervisor.owners()
    assert [] == crew.events


def test_grown_unpacker_is_replaced(crew, monkeypatch):
    """
    One that keeps much memory after a drop ends in good order, and another takes its place without delay.
    """
    monkeypatch.setattr(seats.Running, "resident_bytes", lambda _: supervising.MOST_RESIDENT_BYTES + 1)
    crew.begin()
    crew.heard()
    crew.say(Done("b1"))
    crew.round()
    told, has_place = crew.heard(), crew.supervisor.has_place(task().drop)
    crew.process().end(0)
    crew.round()
    crew.round()

    assert [DRAIN] == told
    assert has_place  # the second seat
    assert ["me/u0.2"] == crew.supervisor.owners()
    assert crew.supervisor.is_healthy()


def test_memory_of_a_process_is_seen():
    """
    What a living process has in use is told in bytes; of one that is gone nothing is known.
    """
    ours = seats.Running("me", FakeProcess(), None)
    ours.process.pid = os.getpid()
    gone = seats.Running("me", FakeProcess(), None)

    assert 1024**2 < ours.resident_bytes() < 1024**4
    assert 0 == gone.resident_bytes()


def test_machine_without_room_for_a_process_is_waited_for(crew):
    """
    When no process can be started that is told, the drop is handed back, and it is tried again with backoff.
    """

    def no_room():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    crew.hand("a.zip")
    crew.on_spawn = no_room
    handed = crew.hand("b.zip")
    full = fits(crew, 1)
    healthy = crew.supervisor.is_healthy()
    crew.on_spawn = lambda: None
    crew.clock.go_on(60)
    crew.round()
    crew.say(READY)
    crew.round()

    assert ["unpacker 1"] == [event.leg for event in crew.events if isinstance(event, TroubleBegan)]
    assert [(handed, Untaken())] == crew.supervisor.collect()
    assert (False, False, True) == (full, healthy, crew.supervisor.is_healthy())
    assert fits(crew, 1)


def test_readiness_is_that_of_the_first_until_one_dies(crew):
    """
    Drops can be taken when the first unpacker is there, and again when every one that died is replaced.
    """
    fresh = Crew()
    fresh.round()
    before, well = fresh.supervisor.is_healthy(), crew.supervisor.is_healthy()
    crew.begin()
    crew.process().end(-9)
    crew.round()
    dead = crew.supervisor.is_healthy()
    crew.clock.go_on(1)
    crew.round()
    crew.say(READY)
    crew.round()

    assert (False, True, False, True) == (before, well, dead, crew.supervisor.is_healthy())
    fresh.end()


def test_words_that_cannot_be_read_end_their_process(crew):
    """
    An unpacker whose words make no sense has a memory that is not to be trusted.
    """
    crew.begin()
    crew.started[-1][2].send_bytes(b"no word of ours")
    crew.round()

    assert [("me/u0.1", End.DIED)] == crew.settled


def test_draining_hands_back_what_was_not_begun(crew):
    """
    Told to drain, unpackers hear of it, a drop that waits for its process comes back, and nobody takes another.
    """
    crew.hand("a.zip")
    crew.heard()
    waiting = task("b.zip")
    crew.supervisor.hand_over(waiting)
    crew.supervisor.drain()
    late = task("c.zip")
    crew.supervisor.hand_over(late)

    assert [DRAIN] == crew.heard()
    assert [(waiting, Untaken()), (late, Untaken())] == crew.supervisor.collect()
    assert not fits(crew, 1)


def test_unpacker_in_the_making_drains_too():
    """
    One that is being started while the service is told to stop hears of it.
    """
    crew = Crew()
    crew.on_spawn = crew.supervisor.drain
    crew.round()

    assert [DRAIN] == crew.heard()
    crew.end()


def test_shutdown_is_not_an_attempt(crew):
    """
    What is killed because the grace period is over is settled as stopped.
    """
    crew.begin()
    crew.supervisor.drain()
    crew.supervisor.kill()
    crew.supervisor.run()

    assert [("me/u0.1", End.STOPPED)] == crew.settled


@pytest.mark.parametrize(
    "error", [StorageError("gone", subject="x", hint="mount it"), NoRoomError(5, "5 bytes"), DatabaseUnavailableError()]
)
def test_errors_pass_between_processes_as_they_are(error):
    """
    Trouble that inbox knows arrives with all that it says.
    """
    fate = InTrouble(error, Claiming("me", "b1", "a.zip"))
    arrived = pickle.loads(pickle.dumps(portable(fate)))

    assert (type(error), str(error), error.__dict__) == (
        type(arrived.error),
        str(arrived.error),
        arrived.error.__dict__,
    )
    assert fate.left == arrived.left


def test_surprises_pass_between_processes_described(caplog):
    """
    What nobody foresaw may refuse to be sent: its traceback is logged where it happened, its words arrive.
    """
    fate = portable(InTrouble(ZeroDivisionError("odd"), None))
    stubborn = portable(InTrouble(StorageError("gone", subject=lambda: None)))

    assert (PermanentError, "ZeroDivisionError: odd", "SURPRISE") == (
        type(fate.error),
        str(fate.error),
        fate.error.reason_code,
    )
    assert isinstance(pickle.loads(pickle.dumps(stubborn)).error, StorageError)
    assert "odd" in caplog.text
