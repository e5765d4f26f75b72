"""
Which service instances live, as far as this machine can tell.

Each holds a file lock on the volume for as long as it runs. A lock tells the truth to those who share a kernel and a
mounted file system: to them one that can be had means that its holder is gone. About all others, such as another
machine, or another container with a mount of its own whose locks end there, only a lease that nobody extends says so.
"""

import os
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from filelock import FileLock, Timeout

from inbox.core.errors import StorageError
from inbox.domain import InHand, Owner
from inbox.pipeline.dispatching.slots import Slots

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN: Final = "unknown"
_PATIENCE_SECONDS: Final = 10.0
"""Others try our lock for an instant, to see whether we live."""


def this_owner(folder: Path | None = None) -> Owner:
    """
    Return a name for this process that no other one has had or will have.

    Host and process id of a container repeat; the nonce does not. `folder` is where instances leave their marks: its
    file system, as this kernel numbers it, belongs to the name.
    """
    boot = _boot()
    if folder is not None and boot != _UNKNOWN:
        boot += f"-{folder.stat().st_dev:x}"
    return Owner(host=socket.gethostname().replace("/", "_")[:64], boot=boot, pid=os.getpid())


def _boot() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()[:8]
    except OSError:
        return _UNKNOWN


class Instance:
    """This service's mark of life, and the slots of its workers. Held from entering to leaving the block."""

    def __init__(self, folder: Path, owner: Owner, *, workers: int) -> None:
        self.owner = str(owner)
        self._folder = folder
        self._host, self._boot = owner.host, owner.boot
        self._lock = FileLock(_lock_path(folder, self.owner), timeout=_PATIENCE_SECONDS)
        self.slots_path = _slots_path(folder, self.owner)
        self._workers = workers
        self.slots: Slots | None = None
        self.leaves_leases = False
        """Whether leases of ours may be left: then the mark stays, and tells the next service that we are gone."""

    def __enter__(self) -> Self:
        try:
            self._lock.acquire(poll_interval=0.01)
            self.slots = Slots(self.slots_path, count=self._workers)
        except (OSError, Timeout) as error:
            _remove(self._folder, self.owner)
            self._lock.release()
            reason = error.strerror or "its mark is held"
            raise StorageError(f"cannot mark this instance as alive: {reason}", subject=str(self._folder)) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.slots is not None:
            self.slots.close()
        if not self.leaves_leases:
            _remove(self._folder, self.owner)
        self._lock.release()

    def find_dead(self, owners: Collection[str]) -> dict[str, list[InHand]]:
        """
        Return those of these lease owners that are known to be gone, with what their workers had in hand.

        Their marks stay until `bury_dead`; of several services that find one dead, the lease decides who takes over.
        """
        dead: dict[str, list[InHand]] = {}
        for base in {base_of(owner) for owner in owners} - {self.owner}:
            if self._boot == _UNKNOWN or base.split("/")[1:2] != [self._boot]:
                continue
            lock_path = _lock_path(self._folder, base)
            if not lock_path.exists():
                continue
            lock = FileLock(lock_path, blocking=False)
            try:
                lock.acquire()
            except (Timeout, OSError):
                continue
            lock.release()
            in_hand = self._in_hand(base)
            dead.update({owner: in_hand for owner in owners if base_of(owner) == base})
        return dead

    def in_hand_of(self, owner: str) -> list[InHand] | None:
        """Return what an instance, dead or held up, has in hand; None when that cannot be known from here."""
        base = base_of(owner)
        if (
            self._boot == _UNKNOWN
            or base.split("/")[1:2] != [self._boot]
            or not _slots_path(self._folder, base).exists()
        ):
            return None
        return self._in_hand(base)

    def bury_dead(self, owners_with_leases: Collection[str]) -> None:
        """
        Remove the marks of dead instances that hold no lease any more.

        Only those whose locks tell us the truth, and those of this host before it was started anew: elsewhere somebody
        may live whose lock we cannot see, and whose workers need their marks.
        """
        keep = {_stem(base_of(owner)) for owner in owners_with_leases} | {_stem(self.owner)}
        for path in self._folder.glob("*.lock"):
            if path.stem in keep or not self._may_judge(path.stem):
                continue
            lock = FileLock(path, blocking=False)
            with suppress(Timeout, OSError):
                lock.acquire()
                path.with_suffix(".slots").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                lock.release()

    def _may_judge(self, stem: str) -> bool:
        host, boot, *_ = *stem.rsplit("_", 3), "", ""
        was_here_before = host == self._host and boot.partition("-")[0] != self._boot.partition("-")[0]
        return self._boot != _UNKNOWN and (boot == self._boot or was_here_before)

    def _in_hand(self, base: str) -> list[InHand]:
        try:
            with Slots(_slots_path(self._folder, base)) as slots:
                return slots.read_all()
        except (OSError, ValueError):
            return []


def base_of(owner: str) -> str:
    """Return the instance that a lease owner belongs to: workers append their own part."""
    return "/".join(owner.split("/")[:4])


def _stem(owner: str) -> str:
    return owner.replace("/", "_")


def _lock_path(folder: Path, owner: str) -> Path:
    return folder / f"{_stem(owner)}.lock"


def _slots_path(folder: Path, owner: str) -> Path:
    return folder / f"{_stem(owner)}.slots"


def _remove(folder: Path, owner: str) -> None:
    with suppress(OSError):
        _slots_path(folder, owner).unlink(missing_ok=True)
        _lock_path(folder, owner).unlink(missing_ok=True)
