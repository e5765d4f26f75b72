"""The volume: its folders, names that any database can hold, file systems, drops, clocks and bells."""

import os
import threading
from datetime import UTC
from pathlib import Path

import pytest

from inbox.core.errors import NotSettledError, StorageError
from inbox.utils import drops
from inbox.utils.clock import Bell, SystemClock
from inbox.utils.drops import look_at, opened, require_unchanged
from inbox.utils.mounts import filesystem_type, is_network
from inbox.utils.volume import Volume, find_by_stored_name, storable

MOUNTS = r"""
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:40 / /shared rw - nfs4 server:/x rw
31 30 0:41 / /shared/with\040space rw shared:1 - cifs //server/x rw
32 22 0:42 / /shared2 rw - tmpfs tmpfs rw
33 22 0:43 / /twice rw - ext4 /dev/a rw
34 22 0:44 / /twice rw - fuse.sshfs x rw
broken line
"""


def test_volume_is_made_with_its_folders(storage):
    """
    Making the volume makes every folder the service uses, all below the base; making it twice does no harm.
    """
    volume = Volume.at(storage, uploads="in", extracted="out")
    volume.make()
    volume.make()

    assert all(
        folder.is_dir()
        for folder in (
            storage / "in",
            storage / "out" / ".staging",
            volume.processed,
            volume.quarantine,
            volume.receipts,
            volume.locks,
            volume.instances,
            volume.drafts,
        )
    )
    assert "in/a.zip" == volume.relative(storage / "in" / "a.zip")
    assert storage / "out" / "b" == volume.published("b")


def test_undecodable_name_is_stored_and_found(tmp_path):
    """
    A name that is no UTF-8 is kept as text, and the file is found by that text again.
    """
    raw = os.fsdecode(b"caf\xe9.zip")
    (tmp_path / raw).write_text("x")
    (tmp_path / "plain.zip").write_text("y")

    assert r"caf\xe9.zip" == storable(raw)
    assert "größe.zip" == storable("größe.zip")
    assert tmp_path / raw == find_by_stored_name(tmp_path, r"caf\xe9.zip")
    assert tmp_path / "plain.zip" == find_by_stored_name(tmp_path, "plain.zip")
    assert find_by_stored_name(tmp_path, "none.zip") is None
    assert find_by_stored_name(tmp_path, r"none\xff.zip") is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home", "ext4"),
        ("/shared/uploads", "nfs4"),
        ("/shared/with space/x", "cifs"),
        ("/shared2", "tmpfs"),
        ("/twice/x", "fuse.sshfs"),
    ],
)
def test_file_system_is_that_of_the_deepest_mount(path, kind):
    """
    The deepest mount that holds the path counts, and of several on one point the latest.
    """
    assert kind == filesystem_type(Path(path), mountinfo=MOUNTS)


def test_file_system_of_this_machine_is_known():
    """
    The machine's own table is read; without one the type is unknown.
    """
    assert filesystem_type(Path("/proc")) == "proc"
    assert "unknown" == filesystem_type(Path("/x"), mountinfo="")


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse.sshfs", "fuse", "ceph", "ocfs2", "vboxsf"]
)
def test_network_file_systems_are_known(kind):
    """
    File systems that others write to unseen are told from local ones.
    """
    assert is_network(kind)
    assert not any(map(is_network, ("ext4", "xfs", "tmpfs", "overlay", "btrfs", "fusectl", "unknown")))


def test_drop_is_what_it_was(tmp_path):
    """
    A drop is opened as long as it is the file that was looked at.
    """
    path = tmp_path / "a.zip"
    path.write_text("content")
    drop = look_at(path)

    with opened(drop) as fd:
        assert b"content" == os.read(fd, 99)
        path.write_text("another content")
        with pytest.raises(NotSettledError):
            require_unchanged(fd, drop)
    with pytest.raises(NotSettledError), opened(drop):
        pass


def test_drop_that_is_gone_or_a_link(tmp_path):
    """
    Nothing, a folder and a link are no drops; one that vanished or became a link meanwhile is not opened.
    """
    path = tmp_path / "a.zip"
    path.write_text("content")
    drop = look_at(path)
    path.unlink()
    (tmp_path / "link").symlink_to(tmp_path)

    assert look_at(path) is None
    assert look_at(tmp_path) is None
    assert look_at(tmp_path / "link") is None
    assert look_at(tmp_path / "a.zip" / "below") is None
    with pytest.raises(NotSettledError), opened(drop):
        pass
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError), opened(drop):
        pass


def test_device_number_may_change_with_a_mount(tmp_path):
    """
    The same file after a new mount is the same drop.
    """
    path = tmp_path / "a.zip"
    path.write_text("content")
    identity = look_at(path).identity
    moved = drops.DropIdentity(identity.device + 1, identity.inode, identity.size_bytes, identity.modified_ns)

    assert identity.is_same_file(moved)
    assert identity != moved


def test_trouble_with_the_volume_is_told(monkeypatch, tmp_path):
    """
    A drop that cannot be looked at for the volume's sake is not taken for gone.
    """

    def fail(_self):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "lstat", fail)

    with pytest.raises(StorageError):
        look_at(tmp_path / "a")


def test_bell_keeps_a_ring():
    """
    A ring while nobody waits is kept, and once.
    """
    bell = Bell()
    bell.ring()
    bell.ring()

    assert bell.wait(0)
    assert not bell.wait(0)


def test_bell_wakes_whoever_waits():
    """
    Whoever waits is woken by a ring from another thread.
    """
    bell = Bell()
    ringer = threading.Timer(0.01, bell.ring)
    ringer.start()

    assert bell.wait(30)
    ringer.join()


def test_machine_clock_is_aware():
    """
    The wall clock is in UTC and the other one does not go back.
    """
    clock = SystemClock()

    assert UTC is clock.now().tzinfo
    assert clock.monotonic() <= clock.monotonic()
