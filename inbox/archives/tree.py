"""The tree that an archive's names make: each name once, and never two things at once."""

from sys import getsizeof  # one emoji makes a path four times as large as its characters are many
from typing import Final

from inbox.archives.limits import Limits
from inbox.archives.reasons import refuse

_ROOT: Final = ""


class Tree:
    """
    Collects the paths of an archive.

    `add_…` raise ArchiveRefusedError for a name that is there already; `check` for what only shows at the end.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._names: set[str] = set()
        self._links: set[str] = set()
        self.folders: set[str] = set()
        self._names_length = self._folders_length = 0

    def add_file(self, path: str) -> None:
        """Add a member that is a file, written or skipped."""
        if path in self._names:
            raise refuse("DUPLICATE_NAME", member=path)
        self._names.add(path)
        self._names_length += getsizeof(path)
        self._limits.check_names(self._names_length, "paths of members")
        self._add_folders(path.rpartition("/")[0])

    def add_link(self, path: str) -> None:
        """Add a symbolic link; nothing may lie below it."""
        self.add_file(path)
        self._links.add(path)

    def has_file(self, path: str) -> bool:
        return path in self._names

    def add_shown(self, name: str) -> bool:
        """Reserve a name that is only shown; False when it is taken."""
        if name in self._names or name in self.folders:
            return False
        self._names.add(name)
        return True

    def add_folder(self, path: str) -> None:
        """Add a directory; naming it twice does no harm."""
        self._add_folders(path)

    def check(self) -> None:
        """Raise ArchiveRefusedError when a name is a file's and a folder's, or a path goes through a link."""
        through = self._links & self.folders
        if through:
            raise refuse("THROUGH_SYMLINK", member=min(through))
        both = self._names & self.folders
        if both:
            raise refuse("FILE_AND_FOLDER", member=min(both))

    def _add_folders(self, path: str) -> None:
        """Add a folder and those above it; implied ones count too, since each costs an inode."""
        while path != _ROOT and path not in self.folders:
            self.folders.add(path)
            self._folders_length += getsizeof(path)
            path = path.rpartition("/")[0]
        self._limits.check_count(len(self.folders) + len(self._names), "members and folders")
        self._limits.check_names(self._folders_length, "paths of folders")
