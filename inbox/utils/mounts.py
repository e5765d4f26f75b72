"""What kind of file system a path lies on; network ones announce no changes and cannot hold SQLite."""

import re
from pathlib import Path
from typing import Final

_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = re.compile(
    r"^(nfs\d?|cifs|smb\d?|smbfs|9p|virtiofs|ceph|glusterfs|lustre|afs|ncpfs|beegfs|gpfs|fuse(\..*)?|fuseblk"
    r"|ocfs2|gfs2|orangefs|pvfs2|coda|vboxsf|vmhgfs|prl_fs)$"
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def filesystem_type(path: Path, *, mountinfo: str | None = None) -> str:
    """Return the type of the file system that holds this path, as proc_pid_mountinfo(5) names it, or `unknown`."""
    text = mountinfo if mountinfo is not None else _read_mountinfo()
    wanted = path.resolve() if mountinfo is None else path
    best, kind = -1, "unknown"
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator:
            continue
        mount_point = Path(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4]))
        depth = len(mount_point.parts)
        if depth >= best and wanted.is_relative_to(mount_point):  # a later mount on the same point covers the earlier
            best, kind = depth, after.split(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Say whether other machines may write to a file system of this type unseen by us."""
    return _NETWORK.match(kind) is not None


def is_in_memory(kind: str) -> bool:
    """Say whether a file system of this type keeps its content in memory, so that to allocate is to write."""
    return kind in {"tmpfs", "ramfs"}


def _read_mountinfo() -> str:
    try:
        return _MOUNTINFO.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
