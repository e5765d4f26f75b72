"""Drops that come, go or change by a rename, and names that belong to somebody's unfinished work."""

import pytest
from delivering import DAMAGED_GRACE_SECONDS, NOT_TAKEN, QUIET_SECONDS, Witness, payload, taken_once
from processes import Storage, wait_for

TEMPORARY = {
    "Firefox, KDE, curl's users": "{}.part",
    "WinSCP": "{}.filepart",
    "Chrome": "{}.crdownload",
    "Chrome before it asks": "Unconfirmed 4711.crdownload",
    "Opera": "{}.opdownload",
    "Safari": "{}.download",
    "rclone": "{}.a1b2c3d4.partial",
    "many": "{}.tmp",
    "Syncthing": ".syncthing.{}.tmp",
    "ProFTPD": ".in.{}.",
    "Pure-FTPd": ".pureftpd-upload.4711.15.1.af",
    "rsync": ".{}.Xa93bQ",
}


@pytest.mark.parametrize("client", TEMPORARY)
def test_temporary_name_is_never_taken(witness, uploads, client):
    """
    An archive that is whole under a temporary name is not taken, and is once when its client has renamed it.
    """
    name = f"{client.split(',')[0].lower().replace(' ', '-')}.zip"
    one = payload(client, members=5)
    temporary = one.write_to(uploads / TEMPORARY[client].format(name))
    witness.wait_for_a_later_drop(f"after-{name}")
    before = witness.judgements(temporary.name)
    temporary.rename(uploads / name)

    assert NOT_TAKEN == before
    assert taken_once(one) == witness.account(name)


def test_browser_that_reserves_the_name(witness, uploads):
    """
    The empty file by which Firefox reserves a name waits, and what is renamed over it is taken once.
    """
    one = payload("Firefox")
    path = uploads / "reserved.zip"
    path.touch()
    witness.deliver(path.name, [one.data], (uploads / "reserved.zip.part").write_bytes)
    witness.wait_until_left_waiting(path.name)
    (uploads / "reserved.zip.part").rename(path)

    assert taken_once(one) == witness.account(path.name)


def test_waiting_drop_that_is_replaced(witness, uploads):
    """
    A whole archive that is renamed over one that waits for its rest is taken once, and the other never.
    """
    one = payload("replacing")
    path = uploads / "replaced.zip"
    path.write_bytes(payload("replaced").data[:-30])
    witness.wait_until_left_waiting(path.name)
    one.write_to(uploads / ".replaced.zip").rename(path)

    assert taken_once(one) == witness.account(path.name)


def test_two_drops_of_one_name(witness, uploads):
    """
    Two archives under one name, the second after the first was taken, are each taken once.
    """
    first, second = payload("name 1"), payload("name 2")
    path = uploads / "name.zip"
    first.write_to(path)
    witness.account(path.name)
    second.write_to(path)

    assert taken_once(first, second) == witness.account(path.name, times=2)


def test_second_drop_replaces_the_first_while_it_is_worked_on(witness, uploads):
    """
    An archive that is renamed over one that is just being taken does not get lost, and neither does the other.
    """
    first, second = payload("under way 1"), payload("under way 2")
    path = uploads / "under-way.zip"
    second.write_to(uploads / ".under-way.zip")
    first.write_to(path)
    wait_for(lambda: witness.said(path.name, "BatchClaimed"), "the taking")
    (uploads / ".under-way.zip").rename(path)

    assert taken_once(first, second) == witness.account(path.name, times=2)


def test_second_drop_is_written_over_the_first(witness, uploads):
    """
    Of two archives that are written into one file, one after the other with no pause between, the second is taken.
    """
    first, second = payload("over 1"), payload("over 2")
    path = uploads / "over.zip"
    with path.open("wb") as file:
        file.write(first.data)
        file.flush()
        file.seek(0)
        file.write(second.data)

    assert taken_once(second) == witness.account(path.name)


def test_folder_that_is_moved_in(witness, uploads, tmp_path):
    """
    A folder in the uploads is left alone with all that is in it, which is said; an archive out of it is taken once.
    """
    one = payload("folder")
    folder = uploads.parent / "folder"
    folder.mkdir()
    one.write_to(folder / "inside.zip")
    folder.rename(uploads / "folder")
    witness.wait_for_a_later_drop("after-folder.zip")
    before = witness.judgements("inside.zip"), witness.judgements("folder")
    (uploads / "folder" / "inside.zip").rename(uploads / "inside.zip")

    told = "folder is left alone: it is a folder, and only files are taken"
    assert (NOT_TAKEN, NOT_TAKEN | {"complaints": [told]}) == before
    assert taken_once(one) == witness.account("inside.zip")
    assert (uploads / "folder").is_dir()


def test_drops_from_before_the_service(tmp_path):
    """
    Of what lay there before the service started, the whole archive is taken once, and the other when it is whole.
    """
    whole, unfinished = payload("before"), payload("unfinished")
    shared = Storage(
        tmp_path / "shared",
        HANDLERS="handlers_for_processes",
        SETTLE_SECONDS=QUIET_SECONDS,
        DAMAGED_GRACE_SECONDS=DAMAGED_GRACE_SECONDS,
        WORKER_PROCESSES=1,
    )
    uploads = shared.base / "uploads"
    whole.write_to(uploads / "before.zip")
    half = len(unfinished.data) // 2
    with (uploads / "unfinished.zip").open("wb") as file, shared.service() as service:
        file.write(unfinished.data[:half])
        file.flush()
        witness = Witness(shared, service)
        witness.wait_until_left_waiting("unfinished.zip")
        before = witness.account("before.zip")
        file.write(unfinished.data[half:])
        file.close()
        after = witness.account("unfinished.zip")

    assert taken_once(whole) == before
    assert taken_once(unfinished) == after
