"""The sentinel: made once, by whoever comes first, and what a volume says about itself by it."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from pipeline_parts import Clock

from inbox.app.mounting import adopt, mounted
from inbox.app.opening import Opened, patiently, volume_of
from inbox.config import Config
from inbox.core.errors import ConfigurationError, DatabaseUnavailableError, StorageError
from inbox.database import facts
from inbox.utils import sentinel
from inbox.utils.sentinel import make_sentinel, read_sentinel
from inbox.utils.volume import Volume


@pytest.fixture
def at_hand(database, storage, bare_environment):
    """What is there before anything is known: a database, and an empty folder that plays the volume."""
    config = Config(storage_base_path=storage, _env_file=None)
    return Opened(config, database.factory.kw["bind"], database, volume_of(config))


def known(at_hand):
    with at_hand.sessions.reading() as session:
        return facts.known_volume(session=session)


def test_sentinel_is_made_once(tmp_path):
    """
    Whoever makes the sentinel again, also at the same moment, finds the id that it has, and no scratch file is left.
    """
    path = tmp_path / "volume"
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: make_sentinel(path), range(32)))

    assert {read_sentinel(path)} == ids
    assert ["volume"] == os.listdir(tmp_path)


def test_sentinel_without_an_id_is_none(tmp_path):
    """
    An empty file says nothing, nor does one that is missing, and either is replaced when a sentinel is made.
    """
    path = tmp_path / "volume"
    path.write_text("")

    assert read_sentinel(path) is None
    assert read_sentinel(tmp_path / "none") is None
    assert make_sentinel(path) == read_sentinel(path) != ""


def test_sentinel_without_hard_links(tmp_path, monkeypatch):
    """
    Where a file system knows no hard links the sentinel gets its name by a rename.
    """

    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(sentinel.os, "link", refuse)

    assert make_sentinel(tmp_path / "volume") == read_sentinel(tmp_path / "volume")
    assert ["volume"] == os.listdir(tmp_path)


def test_first_start_makes_each_known_to_the_other(at_hand):
    """
    The first start writes one id on the volume and into the database; the next finds it and changes nothing.
    """
    first = mounted(at_hand, Clock())
    second = mounted(at_hand, Clock())

    assert first.volume == second.volume
    assert first.volume.id == read_sentinel(first.volume.sentinel) == known(at_hand)
    first.volume.require()


def test_volume_with_a_sentinel_is_taken_by_a_new_database(at_hand):
    """
    A database that knows no volume belongs to the one it is started with, whatever used that before.
    """
    at_hand.volume.private.mkdir()
    written = make_sentinel(at_hand.volume.sentinel)

    assert written == mounted(at_hand, Clock()).volume.id == known(at_hand)


def test_missing_volume_makes_nothing(at_hand):
    """
    Without the sentinel that the database knows of, nothing is made, and the error says what to do.
    """
    with at_hand.sessions.writing() as session:
        facts.note_volume("1" * 32, now=Clock().now(), session=session)

    with pytest.raises(StorageError, match="inbox adopt"):
        mounted(at_hand, Clock())
    assert [] == os.listdir(at_hand.volume.base)


def test_missing_volume_is_waited_for(at_hand, caplog):
    """
    With patience the volume is waited for, which is said once, until it is there or one is asked to stop.
    """
    with at_hand.sessions.writing() as session:
        facts.note_volume("1" * 32, now=Clock().now(), session=session)
    waits = []

    def pause(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            at_hand.volume.private.mkdir()
            at_hand.volume.sentinel.write_text("1" * 32)
        return True

    assert "1" * 32 == patiently(lambda: mounted(at_hand, Clock()), pause).volume.id
    assert 3 == len(waits)
    assert 1 == caplog.text.count("waiting for the volume")
    at_hand.volume.sentinel.unlink()
    with pytest.raises(StorageError):
        patiently(lambda: mounted(at_hand, Clock()), lambda _: False)


def test_database_that_goes_away_during_the_start_is_waited_for(at_hand, caplog, monkeypatch):
    """
    A database that stops answering after the schema was made sure of is waited for as well, which is said once.
    """
    known_volume, waits = facts.known_volume, []

    def fail(*, session):
        if len(waits) < 2:
            raise DatabaseUnavailableError("the database does not answer")
        return known_volume(session=session)

    monkeypatch.setattr(facts, "known_volume", fail)
    volume = patiently(lambda: mounted(at_hand, Clock()), lambda seconds: waits.append(seconds) or True).volume

    assert volume.id == known(at_hand)
    assert 2 == len(waits)
    assert 1 == caplog.text.count("waiting for the database")


def test_other_volume_is_refused_and_adopted(at_hand):
    """
    Another volume than the one that the database knows is a mistake, until an operator adopts it.
    """
    mounted(at_hand, Clock())
    at_hand.volume.sentinel.write_text("2" * 32)

    with pytest.raises(ConfigurationError, match="another volume"):
        mounted(at_hand, Clock())
    assert "2" * 32 == adopt(at_hand, Clock())
    assert "2" * 32 == mounted(at_hand, Clock()).volume.id


def test_empty_volume_is_adopted_under_an_id_of_its_own(at_hand):
    """
    A volume without a sentinel gets a new id when it is adopted, since the one known before may come back.
    """
    before = mounted(at_hand, Clock()).volume.id
    at_hand.volume.sentinel.unlink()
    after = adopt(at_hand, Clock())

    assert before != after
    assert after == read_sentinel(at_hand.volume.sentinel) == known(at_hand)


def a_volume(storage):
    unknown = Volume.at(storage)
    unknown.make()
    return Volume(unknown.base, unknown.uploads, unknown.extracted, make_sentinel(unknown.sentinel))


def test_volume_says_what_ails_it(storage):
    """
    A volume of which a part is missing, or whose sentinel is another's, is not the one that it was.
    """
    volume = a_volume(storage)
    volume.require()
    volume.receipts.rmdir()
    with pytest.raises(StorageError, match="receipts"):
        volume.require()
    volume.receipts.mkdir()
    volume.require()
    volume.sentinel.write_text("0")
    with pytest.raises(StorageError, match="another volume"):
        volume.require()
    volume.sentinel.unlink()
    with pytest.raises(StorageError, match="not there"):
        volume.require()


def test_volume_that_does_not_answer_is_no_other_one(storage, monkeypatch):
    """
    An error of the volume, such as a stale handle, is told as such.
    """
    volume = a_volume(storage)

    def stale(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("inbox.utils.volume.read_sentinel", stale)

    with pytest.raises(StorageError, match="Stale file handle"):
        volume.require()
