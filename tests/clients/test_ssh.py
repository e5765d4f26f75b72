"""scp, sftp and rsync through a real SSH server, slow, killed and resumed."""

import pytest
from delivering import NOT_TAKEN, finish, kill, need, payload, run, running, taken_once
from servers import sshd_serving

SLOW = ("-l", "16000")  # Kbit/s


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    with sshd_serving(tmp_path_factory.mktemp("ssh")) as sshd:
        yield sshd


def scp(sshd, *words):
    need("scp")
    return ("scp", "-q", *sshd.options, "-P", sshd.port, *words)


def sftp(sshd, tmp_path, *words, batch):
    need("sftp")
    script = tmp_path / "batch"
    script.write_text(batch)
    return ("sftp", "-q", *sshd.options, "-P", sshd.port, *words, "-b", script, sshd.address)


PROTOCOLS = pytest.mark.parametrize("protocol", ["-s", "-O"], ids=["SFTP", "the old one"])


@PROTOCOLS
def test_scp(witness, uploads, sshd, tmp_path, protocol):
    """
    What scp copies, times included, is taken once, whole.
    """
    name = f"scp{protocol}.zip"
    one = payload(name)
    run(*scp(sshd, protocol, "-p", one.write_to(tmp_path / name), f"{sshd.address}:{uploads}/"))

    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
@PROTOCOLS
def test_scp_that_is_slow(witness, uploads, sshd, tmp_path, protocol):
    """
    What scp copies slowly is taken once, whole.
    """
    name = f"slow-scp{protocol}.zip"
    one = payload(name)
    run(*scp(sshd, protocol, *SLOW, one.write_to(tmp_path / name), f"{sshd.address}:{uploads}/"))

    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
@PROTOCOLS
def test_scp_killed_and_repeated(witness, uploads, sshd, tmp_path, protocol):
    """
    What a killed scp leaves waits, and is taken once when another scp has written over it.
    """
    name = f"killed-scp{protocol}.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    with running(*scp(sshd, protocol, *SLOW, source, f"{sshd.address}:{uploads}/")) as client:
        witness.wait_until_some_is_there(name, one)
        kill(client)
    witness.wait_until_left_waiting(name)
    run(*scp(sshd, protocol, source, f"{sshd.address}:{uploads}/"))

    assert taken_once(one) == witness.account(name)


def test_sftp(witness, uploads, sshd, tmp_path):
    """
    What sftp puts is taken once, whole.
    """
    one = payload("sftp")
    source = one.write_to(tmp_path / "sftp.zip")
    run(*sftp(sshd, tmp_path, batch=f"put -p {source} {uploads}/\n"))

    assert taken_once(one) == witness.account("sftp.zip")


@pytest.mark.slow
def test_sftp_killed_and_resumed(witness, uploads, sshd, tmp_path):
    """
    What a killed sftp leaves waits, and is taken once when `reput` has brought the rest.
    """
    name = "killed-sftp.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    with running(*sftp(sshd, tmp_path, *SLOW, batch=f"put {source} {uploads}/\n")) as client:
        witness.wait_until_some_is_there(name, one)
        kill(client)
    witness.wait_until_left_waiting(name)
    run(*sftp(sshd, tmp_path, batch=f"reput {source} {uploads}/{name}\n"))

    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
def test_sftp_that_renames(witness, uploads, sshd, tmp_path):
    """
    What a client like WinSCP puts under `.filepart` is not taken, and is once when it has been renamed.
    """
    name = "renamed-sftp.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    target = uploads / name
    run(*sftp(sshd, tmp_path, *SLOW, batch=f"put {source} {target}.filepart\n"))
    witness.wait_for_a_later_drop(f"after-{name}")
    before = witness.judgements(f"{name}.filepart")
    run(*sftp(sshd, tmp_path, batch=f"rename {target}.filepart {target}\n"))

    assert NOT_TAKEN == before
    assert taken_once(one) == witness.account(name)


@pytest.mark.slow
def test_sftp_that_pauses_between_two_puts(witness, uploads, sshd, tmp_path):
    """
    A session that stays open after its put holds up nobody: the drop is taken once.
    """
    name = "session.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    with running(*sftp(sshd, tmp_path, batch=f"put {source} {uploads}/\n!sleep 600\n")):
        account = witness.account(name)

    assert taken_once(one) == account


def test_cat_over_ssh(witness, uploads, sshd, tmp_path):
    """
    What `ssh host 'cat > file'` writes is taken once, whole.
    """
    one = payload("cat")
    with one.write_to(tmp_path / "source").open("rb") as source:
        command = ("ssh", *sshd.options, "-p", sshd.port, sshd.address, f"cat > {uploads}/cat.zip")
        with running(*command, stdin=source) as client:
            finish(client)

    assert taken_once(one) == witness.account("cat.zip")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--partial", "--inplace", "--append-verify", "--partial-dir=.partial"])
def test_rsync_over_ssh_killed_and_resumed(witness, uploads, sshd, tmp_path, option):
    """
    Whatever a killed rsync leaves at the other end is not taken, and the resumed drop is, once.
    """
    need("rsync")
    name = f"ssh-rsync{option.replace('=', '-')}.zip"
    one = payload(name)
    source = one.write_to(tmp_path / name)
    command = ("rsync", "--archive", "-e", sshd.rsync_shell, option)
    target = f"{sshd.address}:{uploads}/"
    with running(*command, "--bwlimit=2000", source, target) as client:
        witness.wait_until_some_is_there(f"*{name}*", one)
        kill(client)
    witness.wait_for_a_later_drop(f"after-{name}")
    before = witness.judgements(name)
    run(*command, source, target)

    assert NOT_TAKEN == before
    assert taken_once(one) == witness.account(name)
