"""FTP into the uploads: a real server, and curl that is slow, killed and resumed."""

import pytest
from delivering import kill, need, payload, run, running, taken_once
from servers import ftp_serving

SLOW = ("--limit-rate", "1500k")


@pytest.fixture(autouse=True)
def _curl():
    need("curl")


@pytest.fixture(scope="module")
def ftp(witness, tmp_path_factory):
    """The URL of an FTP server that serves the uploads."""
    with ftp_serving(tmp_path_factory.mktemp("ftp"), witness.uploads) as url:
        yield url


def curl(*words):
    return ("curl", "--silent", "--show-error", "--disable", *words)


def test_put(witness, ftp, tmp_path):
    """
    What curl puts is taken once, whole.
    """
    one = payload("ftp")
    run(*curl("-T", one.write_to(tmp_path / "ftp.zip"), f"{ftp}/"))

    assert taken_once(one) == witness.account("ftp.zip")


@pytest.mark.slow
def test_put_that_is_slow(witness, ftp, tmp_path):
    """
    What curl puts slowly is taken once, whole.
    """
    one = payload("slow ftp")
    run(*curl(*SLOW, "-T", one.write_to(tmp_path / "slow-ftp.zip"), f"{ftp}/"))

    assert taken_once(one) == witness.account("slow-ftp.zip")


@pytest.mark.slow
def test_put_killed_and_resumed(witness, ftp, tmp_path):
    """
    What a killed curl leaves waits, and is taken once when `-C -` has appended the rest.
    """
    one = payload("killed ftp", member_bytes=400_000)
    source = one.write_to(tmp_path / "killed-ftp.zip")
    with running(*curl(*SLOW, "-T", source, f"{ftp}/")) as client:
        witness.wait_until_some_is_there("killed-ftp.zip", one)
        kill(client)
    witness.wait_until_left_waiting("killed-ftp.zip")
    run(*curl("-C", "-", "-T", source, f"{ftp}/"))

    assert taken_once(one) == witness.account("killed-ftp.zip")


@pytest.mark.slow
def test_put_and_rename(witness, ftp, tmp_path):
    """
    What curl puts slowly under a temporary name and renames is taken once, whole.
    """
    one = payload("renamed ftp")
    source = one.write_to(tmp_path / "source")
    rename = ("-Q", "-RNFR renamed-ftp.zip.part", "-Q", "-RNTO renamed-ftp.zip")
    run(*curl(*SLOW, *rename, "-T", source, f"{ftp}/renamed-ftp.zip.part"))

    assert taken_once(one) == witness.account("renamed-ftp.zip")
