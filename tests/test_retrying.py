"""Retrying: what an operator says, the only way out of a final state."""

import pytest
from zips import Member, archive

from inbox.core.errors import PermanentError
from inbox.database.operations import get_batch_by_id, get_batch_files


def partial(house, name="drop.zip", members=("a.txt", "b.txt")):
    house.drop(name, members=members)
    house.take()
    house.work(failing={"b.txt"})
    house.closing.round()
    return house.heard(type(house.events[0]))[-1].batch_id


@pytest.mark.parametrize("how", ["name", "id", "beginning"])
def test_batch_is_named_in_any_way(house, how):
    """
    A batch is named by its drop, its id or the beginning of it; what failed goes through again in a new run.
    """
    batch_id = partial(house)
    before = get_batch_by_id(batch_id).run_id
    retried = house.retrier.retry({"name": "drop.zip", "id": batch_id, "beginning": batch_id[:6]}[how])
    house.work()
    house.closing.round()

    assert ("drop.zip", 1, False) == (retried.drop, retried.files, retried.archive_offered_again)
    assert "completed" == get_batch_by_id(batch_id).status
    assert before != get_batch_by_id(batch_id).run_id
    assert {"success"} == {file.status for file in get_batch_files(batch_id)}


def test_one_file_is_retried_alone(house):
    """
    A file is named by its doc_id, and only it goes through again.
    """
    house.drop()
    house.take()
    house.work(failing={"a.txt", "docs/b.txt"})
    house.closing.round()
    files = get_batch_files(house.events[0].batch_id)
    retried = house.retrier.retry(files[1].doc_id[:8])

    assert 1 == retried.files
    assert ["failed", "pending"] == [file.status for file in get_batch_files(files[0].batch_id)]


def test_refused_archive_is_offered_again(house):
    """
    A refused archive goes back into the uploads, and through the same gate.
    """
    house.drop(data=archive([Member("a", flags=1)]))
    house.take()
    house.closing.round()
    batch_id = house.events[0].batch_id
    retried = house.retrier.retry("drop.zip")

    assert (0, True) == (retried.files, retried.archive_offered_again)
    assert (["drop.zip"], []) == (house.uploads(), list(house.volume.quarantine.iterdir()))
    house.take()
    house.closing.round()
    assert "quarantined" == get_batch_by_id(batch_id).status
    assert [] == house.uploads()


def test_archive_that_is_gone_is_explained(house):
    """
    A refused archive that somebody took away cannot be offered again.
    """
    house.drop(data=archive([Member("a", flags=1)]))
    house.take()
    house.closing.round()
    (house.volume.quarantine / "drop.zip").unlink()

    with pytest.raises(PermanentError, match="drop it into the uploads again"):
        house.retrier.retry("drop.zip")


def test_name_that_is_taken_is_explained(house):
    """
    While another drop has the name, the refused archive stays in quarantine, and says when to try again.
    """
    house.drop(data=archive([Member("a", flags=1)]))
    house.take()
    house.closing.round()
    house.drop(members=["other"])

    with pytest.raises(PermanentError, match="another drop of this name"):
        house.retrier.retry("drop.zip")
    assert (house.volume.quarantine / "drop.zip").exists()
    assert "quarantined" == get_batch_by_id(house.events[0].batch_id).status


def test_nothing_to_retry_is_explained(house):
    """
    An unknown name, a batch in which nothing failed and an ambiguous one are told apart.
    """
    with pytest.raises(PermanentError, match="no batch, drop or file"):
        house.retrier.retry("unknown")
    house.drop()
    house.take()
    house.work()
    house.closing.round()
    with pytest.raises(PermanentError, match="nothing has failed there"):
        house.retrier.retry("drop.zip")


def test_ambiguous_name_lists_the_batches(house):
    """
    A name that stands for two batches is answered with the ids to choose from.
    """
    partial(house, members=("b.txt", "one"))
    partial(house, members=("b.txt", "two"))

    with pytest.raises(PermanentError, match="say which"):
        house.retrier.retry("drop.zip")


def test_ambiguous_file_is_explained(house):
    """
    A beginning that fits several files is not guessed at.
    """
    house.drop(members=[f"{number}" for number in range(60)])
    house.take()
    batch_id = house.events[0].batch_id
    firsts = [file.doc_id[0] for file in get_batch_files(batch_id) if file.doc_id[0] != batch_id[0]]

    with pytest.raises(PermanentError, match="more than one file"):
        house.retrier.retry(max(firsts, key=firsts.count))


def test_refused_archive_with_the_longest_name_is_offered_again(house):
    """
    Also where name and reason together were too long, the archive goes back and its reason goes.
    """
    name = "n" * 251 + ".zip"
    house.drop(name, data=archive([Member("a", flags=1)]))
    house.take()
    house.closing.round()
    house.retrier.retry(name)

    assert ([name], []) == (house.uploads(), list(house.volume.quarantine.iterdir()))


def test_archive_that_was_gone_when_it_was_refused_is_explained(house):
    """
    A refused archive that left the uploads before it could be quarantined cannot be offered again.
    """
    path = house.drop(data=archive([Member("a", flags=1)]))
    house.take()
    path.unlink()
    house.closing.round()

    with pytest.raises(PermanentError, match="drop it into the uploads again"):
        house.retrier.retry("drop.zip")
