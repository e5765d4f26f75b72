"""An SMB share: Samba's server, and its client."""

import subprocess

import pytest
from delivering import kill, payload, run, running, taken_once
from servers import samba_serving


@pytest.fixture(scope="module")
def smb(witness, tmp_path_factory):
    """Return how a client is called that does what it is told on the share of the uploads."""
    with samba_serving(tmp_path_factory.mktemp("smb"), witness.uploads) as port:
        yield lambda commands: (
            *("smbclient", "//127.0.0.1/uploads", "--port", port, "--no-pass", "--user", "%"),
            *("--configfile", "/dev/null", "--command", commands),
        )


def test_put(witness, smb, tmp_path):
    """
    What is put on the share is taken once, whole.
    """
    one = payload("smb", member_bytes=400_000)
    run(*smb(f"put {one.write_to(tmp_path / 'smb.zip')} smb.zip"))

    assert taken_once(one) == witness.account("smb.zip")


def test_put_that_pauses(witness, smb):
    """
    What is put with pauses longer than the quiet time, in one go, is taken once, whole.
    """
    one = payload("slow smb")
    with running(*smb("iosize 65536; put - slow-smb.zip"), stdin=subprocess.PIPE, bufsize=0) as client:
        pieces = [one.data[at : at + 500_000] for at in range(0, len(one.data), 500_000)]
        witness.deliver("slow-smb.zip", pieces, client.stdin.write)
        client.stdin.close()
        assert 0 == client.wait(60)

    assert taken_once(one) == witness.account("slow-smb.zip")


def test_put_killed_and_repeated(witness, smb, tmp_path):
    """
    What a client that was killed leaves on the share waits, and is taken once when another has put the whole.
    """
    one = payload("killed smb")
    source = one.write_to(tmp_path / "killed-smb.zip")
    with running(*smb("iosize 65536; put - killed-smb.zip"), stdin=subprocess.PIPE, bufsize=0) as client:
        client.stdin.write(one.data[:1_000_000])
        witness.wait_until_some_is_there("killed-smb.zip", one)
        kill(client)
    witness.wait_until_left_waiting("killed-smb.zip")
    run(*smb(f"put {source} killed-smb.zip"))

    assert taken_once(one) == witness.account("killed-smb.zip")


def test_put_and_rename(witness, smb, tmp_path):
    """
    What is put under a temporary name and renamed on the share is taken once, whole.
    """
    one = payload("renamed smb")
    source = one.write_to(tmp_path / "source")
    run(*smb(f"put {source} renamed-smb.zip.part; rename renamed-smb.zip.part renamed-smb.zip"))

    assert taken_once(one) == witness.account("renamed-smb.zip")
