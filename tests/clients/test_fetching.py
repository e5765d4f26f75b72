"""Programs that fetch from elsewhere, straight into the uploads."""

import signal

import pytest
from delivering import kill, need, need_word_of_the_kernel, payload, run, running, taken_once
from servers import ftp_serving


@pytest.fixture
def source(tmp_path):
    """A folder, and the URL of a slow FTP server that serves it; curl's own limit lets megabytes through at first."""
    folder = tmp_path / "source"
    folder.mkdir()
    with ftp_serving(tmp_path, folder, bytes_per_second=1_500_000) as url:
        yield folder, url


def curl(*words):
    return ("curl", "--silent", "--show-error", "--disable", *words)


def test_fetch(witness, uploads, source):
    """
    What curl fetches into the uploads is taken once, whole.
    """
    need("curl")
    folder, url = source
    one = payload("fetched")
    one.write_to(folder / "source.zip")
    run(*curl("-o", uploads / "fetched.zip", f"{url}/source.zip"))

    assert taken_once(one) == witness.account("fetched.zip")


@pytest.mark.slow
def test_fetch_killed_and_resumed(witness, uploads, source):
    """
    What a killed curl has fetched into the uploads waits, and is taken once when `-C -` has fetched the rest.
    """
    need("curl")
    folder, url = source
    one = payload("killed fetch", member_bytes=400_000)
    one.write_to(folder / "source.zip")
    fetch = ("-o", uploads / "killed-fetch.zip", f"{url}/source.zip")
    with running(*curl(*fetch)) as client:
        witness.wait_until_some_is_there("killed-fetch.zip", one)
        kill(client)
    witness.wait_until_left_waiting("killed-fetch.zip")
    run(*curl("-C", "-", *fetch))

    assert taken_once(one) == witness.account("killed-fetch.zip")


def aria2(uploads, name, url):
    """Fetch with four connections, each a quarter of the file, into room that is reserved first."""
    need("aria2c")
    options = ("--split=4", "--max-connection-per-server=4", "--min-split-size=1M", "--file-allocation=falloc")
    return ("aria2c", "--no-conf", "--quiet", "--continue", *options, f"--dir={uploads}", f"--out={name}", url)


@pytest.mark.slow
def test_fetch_in_parallel(witness, uploads, source):
    """
    What aria2 fetches in four places at once is taken once, whole.
    """
    need_word_of_the_kernel(uploads)
    folder, url = source
    one = payload("parallel", member_bytes=400_000)
    one.write_to(folder / "source.zip")
    run(*aria2(uploads, "parallel.zip", f"{url}/source.zip"))

    assert taken_once(one) == witness.account("parallel.zip")


@pytest.mark.slow
def test_fetch_in_parallel_interrupted_and_resumed(witness, uploads, source):
    """
    What an interrupted aria2 has fetched in four places waits, and is taken once when aria2 has fetched the rest.
    """
    folder, url = source
    one = payload("interrupted parallel", member_bytes=400_000)
    one.write_to(folder / "source.zip")
    fetch = aria2(uploads, "interrupted-parallel.zip", f"{url}/source.zip")
    with running(*fetch) as client:
        witness.wait_until_some_is_there("interrupted-parallel.zip", one)
        kill(client, signal.SIGINT)
    witness.wait_until_left_waiting("interrupted-parallel.zip")
    run(*fetch)

    assert taken_once(one) == witness.account("interrupted-parallel.zip")
    assert not witness.said("interrupted-parallel.zip.aria2", "DropLeftAlone")
