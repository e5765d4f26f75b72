"""Real servers on loopback, each with settings of its own and the uploads as what it serves."""

import getpass
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from delivering import find_program, need, run, running, unused_port, wait_until_served

SMB_BLOCK_BYTES = 65536
"""Else smbclient would have the whole archive in hand before it sends anything."""


@dataclass(frozen=True)
class Sshd:
    """An SSH server that lets this user in with a key of the test."""

    port: int
    options: tuple[str, ...]

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"

    @property
    def rsync_shell(self) -> str:
        return " ".join(("ssh", "-p", str(self.port), *self.options))


@contextmanager
def sshd_serving(folder: Path):
    """Run sshd for the block. It works for a normal user too, who can then log in only as themselves."""
    need("sshd", "ssh", "ssh-keygen")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd demands it of root, and its package makes it at boot
    for key in ("host_key", "user_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    port, log, config = unused_port(), folder / "sshd.log", folder / "sshd_config"
    config.write_text(
        f"Port {port}\n"
        "ListenAddress 127.0.0.1\n"
        f"HostKey {folder / 'host_key'}\n"
        f"AuthorizedKeysFile {folder / 'user_key.pub'}\n"
        f"PidFile {folder / 'sshd.pid'}\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
        "StrictModes no\n"
        "UsePAM no\n"
        "Subsystem sftp internal-sftp\n"
    )
    options = (
        *("-F", "/dev/null", "-i", str(folder / "user_key")),
        *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known_hosts'}"),
    )
    with running(find_program("sshd"), "-D", "-e", "-f", config, log=log) as process:
        wait_until_served(port, process, log)
        sshd = Sshd(port, options)
        tried = subprocess.run(
            ["ssh", "-p", str(port), *options, sshd.address, "true"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if tried.returncode:
            pytest.skip(f"this user cannot log in over ssh: {tried.stderr.strip().splitlines()[-1:]}")
        yield sshd


@contextmanager
def samba_serving(folder: Path, uploads: Path):
    """Run smbd for the block; yields its port. The share is called uploads, and everybody is let in as this user."""
    need("smbd", "smbclient")
    if os.geteuid() != 0:
        pytest.skip("smbd opens no files for guests unless root has started it")
    port, log, config = unused_port(), folder / "smbd.log", folder / "smb.conf"
    places = ("private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir")
    config.write_text(
        "[global]\n"
        "server role = standalone server\n"
        "interfaces = lo\n"
        "bind interfaces only = yes\n"
        f"smb ports = {port}\n"
        "map to guest = Bad User\n"
        f"guest account = {getpass.getuser()}\n"
        f"passdb backend = smbpasswd:{folder / 'passwords'}\n"
        "load printers = no\n"
        "disable spoolss = yes\n"
        f"smb2 max write = {SMB_BLOCK_BYTES}\n"
        + "".join(f"{place} = {folder / 'smb'}\n" for place in places)
        + f"[uploads]\npath = {uploads}\nguest ok = yes\nread only = no\n"
    )
    (folder / "smb").mkdir()
    command = (find_program("smbd"), "--foreground", "--no-process-group", "--debug-stdout")
    with running(*command, f"--configfile={config}", log=log) as process:
        wait_until_served(port, process, log)
        yield port


@contextmanager
def ftp_serving(folder: Path, served: Path, *, bytes_per_second: int = 0):
    """Run vsftpd for the block, as this user; yields the URL. Everybody may do everything in the folder served."""
    need("vsftpd")
    port, log, config = unused_port(), folder / "vsftpd.log", folder / "vsftpd.conf"
    config.write_text(
        "listen=YES\n"
        "listen_address=127.0.0.1\n"
        f"listen_port={port}\n"
        "background=NO\n"
        "run_as_launching_user=YES\n"
        f"ftp_username={getpass.getuser()}\n"
        f"secure_chroot_dir={folder}\n"
        "seccomp_sandbox=NO\n"
        "local_enable=NO\n"
        "anonymous_enable=YES\n"
        "no_anon_password=YES\n"
        f"anon_root={served}\n"
        "anon_umask=022\n"
        f"anon_max_rate={bytes_per_second}\n"
        "anon_upload_enable=YES\n"
        "anon_other_write_enable=YES\n"
        "write_enable=YES\n"
        "allow_writeable_chroot=YES\n"
        "xferlog_enable=NO\n"
    )
    with running(find_program("vsftpd"), config, log=log) as process:
        wait_until_served(port, process, log)
        yield f"ftp://127.0.0.1:{port}"
