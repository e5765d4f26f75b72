"""Explaining: every verdict, in the order in which the service decides, and nothing changed by it."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from pipeline_parts import QUIET
from zips import Member, archive

from inbox.archives import Limits, Terms
from inbox.core.errors import DatabaseUnavailableError, PermanentError
from inbox.database import batches
from inbox.lifecycle import BatchState
from inbox.pipeline import extracting
from inbox.pipeline.claiming import identify, locked, look_at_lock
from inbox.pipeline.explaining import Looker, Service, Verdict, judge
from inbox.pipeline.explaining.explanation import Place, Standing
from inbox.pipeline.explaining.looking import SHOWN_SKIPPED
from inbox.utils.drops import look_at, opened


@pytest.fixture
def explain(house):
    """Return a function that explains a file of the house, by name or path, as its service would judge it."""

    def run(file, *, deep=False, sessions=house.sessions, why_not="", trust_age=True):
        service = Service(
            house.volume,
            house.unpacker.terms,
            QUIET,
            trust_age,
            house.intake.timing,
            house.intake.quarantines_not_archives,
        )
        looker = Looker(service, house.clock, sessions, why_not=why_not)
        return judge(looker.look(looker.find(str(file)), deep=deep))

    return run


def told(explanation):
    return explanation.ruling.verdict, explanation.ruling.reason_code


def finish(house):
    house.work()
    house.closing.round()


def claim(house, path):
    """Do what another service does until it begins to unpack."""
    drop = look_at(path)
    with opened(drop) as fd:
        batch_id = identify(fd, should_stop=lambda: False)
    return house.claimer.claim(batch_id, drop, drop_name=path.name, zip_path=house.volume.relative(path)).lease


def test_new_drop_would_be_taken(house, explain):
    """
    A quiet, whole and new drop would be taken, and what it would come to is told.
    """
    house.drop(members=["a.txt", "docs/b.txt", "__MACOSX/._a.txt"])
    house.clock.go_on(60)
    explanation = explain("drop.zip")
    facts = explanation.facts

    assert (Verdict.TAKEN, "") == told(explanation)
    assert (None, "", 0.0) == (facts.known, facts.database, facts.quiet.left_seconds)
    assert (3, 2, 1, 1, 14) == (
        facts.contents.members,
        facts.contents.files,
        facts.contents.skipped,
        facts.contents.folders,
        facts.contents.declared_bytes,
    )
    assert [("__MACOSX/._a.txt", "JUNK")] == [(one.path, one.reason_code) for one in facts.contents.skipped_members]
    assert facts.room.is_enough
    assert 14 + extracting.HEADROOM_BYTES < facts.room.needed_bytes < 100_000 + extracting.HEADROOM_BYTES


@pytest.mark.parametrize(
    "name", [".drop.zip", "~drop.zip", "drop.zip.part", "drop.zip.filepart", "drop.zip.crdownload", "DROP.TMP"]
)
def test_temporary_name_would_be_left_alone(house, explain, name):
    """
    A name that marks an unfinished copy is left alone, whatever the file holds.
    """
    house.drop(name)
    house.clock.go_on(60)

    assert (Verdict.LEFT_ALONE, "TEMPORARY_NAME") == told(explain(name))


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "link to nothing"])
def test_what_is_no_file_would_be_left_alone(house, explain, kind):
    """
    A folder, a link, wherever it leads, and a pipe are nothing to take, and nothing to follow or to wait for.
    """
    path = house.volume.uploads / "thing.zip"
    target = house.drop("real.zip")
    make = {
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(target),
        "pipe": lambda: os.mkfifo(path),
        "link to nothing": lambda: path.symlink_to("nothing"),
    }
    make[kind]()

    assert (Verdict.LEFT_ALONE, "NOT_A_FILE") == told(explain("thing.zip"))


def test_file_below_the_uploads_would_be_left_alone(house, explain):
    """
    The service looks at the top level of the uploads only.
    """
    (house.volume.uploads / "sub").mkdir()
    path = house.volume.uploads / "sub" / "drop.zip"
    path.write_bytes(archive(["a.txt"]))

    assert (Verdict.LEFT_ALONE, "BELOW_UPLOADS") == told(explain(path))


def test_missing_file_is_a_mistake(house, explain, tmp_path):
    """
    A file that is not there has no verdict.
    """
    for name in ("nothing.zip", tmp_path / "nothing.zip", "", "a\0b", "n" * 300):
        with pytest.raises(PermanentError, match="no such file"):
            explain(name)


def test_young_drop_waits_for_the_quiet_time(house, explain):
    """
    A drop that changed a moment ago waits, for what is left of the quiet time; where clocks differ that is uncertain.
    """
    path = house.drop()
    house.clock.go_on(look_at(path).changed_at - house.clock.now().timestamp() + 0.5)
    explanation = explain("drop.zip")

    assert (Verdict.WAITS, "NOT_QUIET") == told(explanation)
    assert (0.5, 2.0, 1.5, True) == (
        explanation.facts.quiet.age_seconds,
        explanation.facts.quiet.wanted_seconds,
        explanation.facts.quiet.left_seconds,
        explanation.facts.quiet.is_certain,
    )
    assert explanation.facts.contents is not None
    assert not explain("drop.zip", trust_age=False).facts.quiet.is_certain


@pytest.mark.parametrize(
    ("data", "verdict", "reason_code"),
    [
        (b"", Verdict.WAITS, "EMPTY_FILE"),
        (bytes(5000), Verdict.WAITS, "NOT_BEGUN"),
        (archive(["a.txt"])[:-5], Verdict.WAITS, "NO_END_RECORD"),
        (b"hello", Verdict.LEFT_ALONE, "NOT_AN_ARCHIVE"),
    ],
)
def test_drop_that_is_not_whole_waits_with_its_reason(house, explain, data, verdict, reason_code):
    """
    What keeps a drop from being whole is said with its code; what is no archive is left alone.
    """
    house.drop(data=data)
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (verdict, reason_code) == told(explanation)
    assert (None, None) == (explanation.facts.batch_id, explanation.facts.contents)


def test_what_is_no_archive_would_be_refused_where_that_is_wanted(house, explain):
    """
    A service that moves what is no archive to quarantine is foreseen to do so, once it is quiet.
    """
    house.intake.quarantines_not_archives = True
    house.drop(data=b"hello")
    young = explain("drop.zip", trust_age=False)
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.WAITS, "NOT_QUIET") == told(young)
    assert (Verdict.REFUSED, "NOT_AN_ARCHIVE") == told(explanation)
    assert explanation.ruling.then.startswith("it goes to quarantine/")


def test_drop_that_is_open_waits(house, explain):
    """
    A whole drop that somebody has open for writing waits, and its content is told all the same.
    """
    path = house.drop()
    house.clock.go_on(60)
    with path.open("r+b"):
        explanation = explain("drop.zip")

    assert (Verdict.WAITS, "BEING_WRITTEN") == told(explanation)
    assert 2 == explanation.facts.contents.files


def test_drop_that_changes_meanwhile_waits(house, explain, monkeypatch):
    """
    A drop that changes while it is read is told to be changing.
    """
    path = house.drop()
    house.clock.go_on(60)
    grow = SimpleNamespace(reading=lambda: path.write_bytes(archive(["other.txt"])))

    @contextmanager
    def reading():
        grow.reading()
        with house.sessions.reading() as session:
            yield session

    assert (Verdict.WAITS, "NOT_QUIET") == told(explain("drop.zip", sessions=SimpleNamespace(reading=reading)))


def test_locked_drop_waits_for_its_holder(house, explain):
    """
    A drop whose lock somebody holds waits, and the process is named; a lock file that a crash left holds nobody up.
    """
    house.drop()
    house.clock.go_on(60)
    with locked(house.volume.locks, "drop.zip"):
        held = explain("drop.zip")
        (left,) = house.volume.locks.iterdir()
    left.write_bytes(b"")
    free = explain("drop.zip")

    assert (Verdict.WAITS, "LOCKED") == told(held)
    assert os.getpid() == held.facts.lock.process
    assert (Verdict.TAKEN, False) == (free.ruling.verdict, free.facts.lock.is_held)
    assert [left] == list(house.volume.locks.iterdir())


def test_lock_that_is_looked_at_can_be_taken(house):
    """
    Whoever looked at a lock does not keep it.
    """
    with locked(house.volume.locks, "drop.zip") as first:
        holder = look_at_lock(house.volume.locks, "drop.zip")
    left = look_at_lock(house.volume.locks, "drop.zip")
    with locked(house.volume.locks, "drop.zip") as second:
        assert (True, True) == (first, second)

    assert os.getpid() == holder.process
    assert left is None


def test_drop_being_unpacked_waits_for_its_owner(house, explain):
    """
    While a drop is unpacked, and locked, it waits for who has the lease, and so does another one of the same content.
    """
    path = house.drop()
    house.drop("again.zip")
    house.clock.go_on(60)
    claim(house, path)
    with locked(house.volume.locks, "drop.zip"):
        own, other = explain("drop.zip"), explain("again.zip")

    assert [(Verdict.WAITS, "UNDER_WAY")] * 2 == [told(own), told(other)]
    assert house.owner == own.facts.known.lease_owner
    assert [Standing.CARED_FOR, Standing.RECOGNISED] == [own.facts.known.standing, other.facts.known.standing]


def test_released_drop_waits_until_it_is_due(house, explain):
    """
    A drop that was given back waits for its time, and would then be unpacked as the same batch.
    """
    path = house.drop()
    house.clock.go_on(60)
    lease = claim(house, path)
    due_at = house.clock.now() + QUIET
    with house.sessions.writing() as session:
        batches.release_batch(
            lease, due_at=due_at, counted=False, now=house.clock.now(), session=session, reason="no room"
        )
    early = explain("drop.zip")
    house.clock.go_on(QUIET.total_seconds())
    due = explain("drop.zip")

    assert (Verdict.WAITS, "NOT_DUE") == told(early)
    assert "no room" in early.ruling.reason
    assert (Verdict.TAKEN, "") == told(due)
    assert lease.batch_id[:12] in due.ruling.then


def test_drop_whose_files_are_worked_on_is_taken(house, explain):
    """
    A drop that is registered is taken already, until its archive leaves the uploads.
    """
    house.drop()
    house.take()
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.TAKEN, "KNOWN") == told(explanation)
    assert BatchState.PROCESSING == explanation.facts.known.state


def test_archive_left_on_purpose_is_taken(house, explain):
    """
    With AFTER_SUCCESS=keep a finished archive stays in the uploads, and is told to be taken.
    """
    house.reporter._after_success = "keep"
    house.drop()
    house.take()
    finish(house)
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.TAKEN, "KNOWN") == told(explanation)
    assert "AFTER_SUCCESS" in explanation.ruling.then


def test_known_content_is_a_duplicate(house, explain, tmp_path):
    """
    Content that was taken is a duplicate of its batch, in the uploads, in processed/ and anywhere else.
    """
    house.drop()
    house.take()
    finish(house)
    batch_id = house.heard(type(house.events[0]))[0].batch_id
    elsewhere = tmp_path / "copy.zip"
    elsewhere.write_bytes(house.drop("again.zip").read_bytes())
    house.clock.go_on(60)
    found = [explain(path) for path in ("again.zip", house.volume.processed / "drop.zip", elsewhere)]

    assert [(Verdict.DUPLICATE, "DUPLICATE")] * 3 == [told(one) for one in found]
    assert {(batch_id, "drop.zip", "completed")} == {
        (one.facts.known.batch_id, one.facts.known.drop, one.facts.known.state) for one in found
    }
    assert [Place.UPLOADS, Place.PROCESSED, Place.ELSEWHERE] == [one.facts.place for one in found]


def test_content_that_was_refused_would_be_refused_again(house, explain):
    """
    What lies in quarantine, and the same content dropped again, would go there, with the reason of the first time.
    """
    data = archive(["../up.txt"])
    house.drop("bad.zip", data)
    house.take()
    house.closing.round()
    house.drop("again.zip", data)
    house.clock.go_on(60)
    found = [explain("again.zip"), explain(house.volume.quarantine / "bad.zip")]

    assert [(Verdict.REFUSED, "UNSAFE_PATH")] * 2 == [told(one) for one in found]
    assert all("inbox retry" in one.ruling.hint for one in found)
    assert Place.QUARANTINE == found[1].facts.place


def test_failed_files_can_be_retried_by_hand(house, explain):
    """
    A duplicate of a batch with failed files says how these are tried again.
    """
    house.drop()
    house.take()
    house.work(failing={"a.txt"})
    house.closing.round()
    house.drop()
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.DUPLICATE, "partial") == (explanation.ruling.verdict, explanation.facts.known.state)
    assert f"inbox retry {explanation.facts.known.batch_id[:12]}" in explanation.ruling.hint


def test_refused_archive_says_code_member_and_hint(house, explain):
    """
    An archive that its index condemns would be refused, with code, detail, member and what to do.
    """
    house.drop(data=archive(["../up.txt"]))
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.REFUSED, "UNSAFE_PATH") == told(explanation)
    assert ("../up.txt", True) == (explanation.facts.refusal.member, bool(explanation.ruling.hint))


def test_limits_are_those_of_the_service(house, explain):
    """
    An archive past a limit in force would be refused.
    """
    house.unpacker.terms = Terms(Limits(max_members=1))
    house.drop()
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.REFUSED, "TOO_MANY_MEMBERS") == told(explanation)
    assert 1 == explanation.facts.limits.max_members


def test_damage_shows_when_members_are_decoded(house, explain):
    """
    A wrong checksum shows with `deep` only; in a young drop it may be a copy under way, and the drop waits.
    """
    house.drop(data=archive([Member("a.txt", crc=1)]))
    house.clock.go_on(5)
    shallow, young = explain("drop.zip"), explain("drop.zip", deep=True)
    house.clock.go_on(60)
    old = explain("drop.zip", deep=True)

    assert (Verdict.TAKEN, "", False) == (*told(shallow), shallow.facts.contents.is_decoded)
    assert (Verdict.WAITS, "BAD_CRC") == told(young)
    assert (Verdict.REFUSED, "BAD_CRC") == told(old)


def test_honest_members_are_decoded(house, explain):
    """
    With `deep` it is told that every member is as declared.
    """
    house.drop()
    house.clock.go_on(60)

    assert explain("drop.zip", deep=True).facts.contents.is_decoded


def test_only_the_first_skipped_members_are_named(house, explain):
    """
    Of many skipped members the first are named, and all are counted.
    """
    house.drop(members=[f"__MACOSX/{number}" for number in range(30)])
    house.clock.go_on(60)
    contents = explain("drop.zip").facts.contents

    assert (30, SHOWN_SKIPPED) == (contents.skipped, len(contents.skipped_members))


def test_drop_without_room_waits(house, explain, monkeypatch):
    """
    An archive that the volume has no room for waits.
    """
    monkeypatch.setattr(extracting, "HEADROOM_BYTES", 1 << 62)
    house.drop()
    house.clock.go_on(60)
    explanation = explain("drop.zip")

    assert (Verdict.WAITS, "DISK_FULL") == told(explanation)
    assert not explanation.facts.room.is_enough


def test_file_is_explained_without_the_database(house, explain):
    """
    Without a database, or with one that goes away, the file is explained and the reason why nobody was asked is told.
    """
    house.drop()
    house.clock.go_on(60)

    def fail():
        raise DatabaseUnavailableError("it does not answer")

    never = explain("drop.zip", sessions=None, why_not="there is none")
    gone = explain("drop.zip", sessions=SimpleNamespace(reading=fail))

    assert [Verdict.TAKEN] * 2 == [never.ruling.verdict, gone.ruling.verdict]
    assert ["there is none", "it does not answer"] == [never.facts.database, gone.facts.database]


def test_name_in_the_uploads_comes_before_a_path(house, explain, tmp_path, monkeypatch):
    """
    A bare name means the drop; a path with a slash means the path.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drop.zip").write_text("another file")
    house.drop()

    assert Place.UPLOADS == explain("drop.zip").facts.place
    assert Place.ELSEWHERE == explain("./drop.zip").facts.place


def test_hostile_name_is_found_and_stays_storable(house, explain):
    """
    A drop whose name is no UTF-8 is found by the name that receipts give it.
    """
    house.drop(os.fsdecode(b"dr\xffop.zip"))
    house.clock.go_on(60)
    explanation = explain("dr\\xffop.zip")

    assert (Verdict.TAKEN, "dr\\xffop.zip") == (explanation.ruling.verdict, explanation.facts.name)
