"""
The plan: the whole index judged, before a byte is written.

Every entry ends in one of four ways: it refuses the archive, is skipped with a reason, is a folder, or is a file to
write. What the plan holds is safe to write under the target, within the limits as declared; the writer holds the
content to what was declared.
"""

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from inbox.archives.codepages import UTF8, NameReader, Reading
from inbox.archives.decoding import METHODS, decode_whole, decoded
from inbox.archives.encryption import Seal
from inbox.archives.ending import find_ending
from inbox.archives.headers import locate_data
from inbox.archives.index import Entry, read_index
from inbox.archives.limits import Limits
from inbox.archives.names import SAME_FOLDED, SkipMemberError, folded, is_junk, remarks_on, safe_path, shown_name
from inbox.archives.reasons import refuse
from inbox.archives.records import PATCHED, STORED
from inbox.archives.source import Source
from inbox.archives.terms import Terms
from inbox.archives.tree import Tree
from inbox.archives.unlocking import unlock
from inbox.archives.watchman import Watchman
from inbox.domain import NameOrigin, SkippedMember

MAX_LINK_BYTES: Final = 4096
_SOME_ENTRIES: Final = 256
"""Judged between two looks at the clock."""
_EMPTY_STREAM_BYTES: Final = 64
"""The longest that any method makes of nothing."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A member to write. `data_at` is where its compressed bytes begin; sizes in bytes."""

    path: str
    position: int
    data_at: int
    packed_bytes: int
    size_bytes: int
    crc: int
    method: int
    seal: Seal | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make of an archive. Files stand in the order of their data, folders with the outer ones first."""

    files: tuple[PlannedFile, ...]
    skipped: tuple[SkippedMember, ...]
    folders: tuple[str, ...]
    directories: int
    """Members that are directories; they have no rows."""
    declared_bytes: int
    archive_bytes: int
    names: Mapping[int, NameOrigin]
    """By position, the origin of each name that is not simply the UTF-8 that stands in the archive."""


def plan_extraction(fd: int, terms: Terms, watchman: Watchman | None = None) -> Plan:
    """
    Judge the open archive and return what to write.

    Encrypted members need one password that fits them all.

    Raises ArchiveRefusedError when the archive is at fault, NotSettledError when it changes meanwhile, StorageError
    when it cannot be read, and what the watchman does.
    """
    source = Source(fd, (watchman or Watchman(terms.limits)).look_up)
    ending = find_ending(source)
    if ending is None:
        raise refuse("NO_END_RECORD", damaged=True)
    if not ending.is_clean and not terms.accept_outside:
        raise refuse("TRAILING_DATA", damaged=True)
    if not ending.is_last:
        raise refuse("AMBIGUOUS_END", "another archive stands behind this one")
    if ending.prefix_bytes and not terms.accept_outside:
        raise refuse("PREPENDED_DATA", f"{ending.prefix_bytes:,} bytes")
    entries = read_index(source, ending, terms.limits, with_encrypted=bool(terms.passwords))
    data_at = locate_data(source, ending, entries, accept_prefix=terms.accept_outside)
    unlock(source, entries, data_at, terms.passwords)
    return _Judge(source, terms.limits, entries, data_at, NameReader(entries, terms.name_encoding)).plan()


@dataclass
class _Judge:
    source: Source
    limits: Limits
    entries: list[Entry]
    data_at: list[int]
    reader: NameReader
    tree: Tree = field(init=False)
    files: list[PlannedFile] = field(init=False, default_factory=list)
    skipped: list[SkippedMember] = field(init=False, default_factory=list)
    wanted_folders: set[str] = field(init=False, default_factory=set)
    directories: int = field(init=False, default=0)
    inflated_bytes: int = field(init=False, default=0)
    """Of members that are only looked into."""
    nameless: list[tuple[Entry, str]] = field(init=False, default_factory=list)
    """Members whose own name cannot be used, and why."""
    names: dict[int, NameOrigin] = field(init=False, default_factory=dict)
    folded: dict[str, int] = field(init=False, default_factory=dict)
    """How many paths a volume without case would take for this one, which is none of them."""

    def __post_init__(self) -> None:
        self.tree = Tree(self.limits)

    def plan(self) -> Plan:
        declared_bytes = 0
        self.entries.reverse()
        while self.entries:  # each is let go when its place is found: a million of them weigh as much as the plan
            entry = self.entries.pop()
            if entry.position % _SOME_ENTRIES == 0:
                self.source.look_up()
            reading = None
            try:
                reading = self.reader.read(entry)
                path = safe_path(reading.text)
                if entry.is_directory or reading.text.endswith("\\"):
                    self._place_directory(entry, path)
                    continue
                declared_bytes += self._place(entry, path)
                self._remember(entry, path, reading)
            except SkipMemberError as error:
                self.nameless.append((entry, error.reason_code))
                encoding = reading.encoding if reading else UTF8
                self.names[entry.position] = NameOrigin(entry.raw_name, encoding)
        self.tree.check()
        self._remark_on_alike()
        self._name_the_nameless()
        self.limits.check_total(declared_bytes, self.source.size)
        self.files.sort(key=lambda file: file.data_at)
        return Plan(
            files=tuple(self.files),
            skipped=tuple(self.skipped),
            folders=tuple(sorted(self._folders())),
            directories=self.directories,
            declared_bytes=declared_bytes,
            archive_bytes=self.source.size,
            names=self.names,
        )

    def _place(self, entry: Entry, path: str) -> int:
        """Find the place of an entry that is no directory; returns the bytes that will be written for it."""
        if stat.S_ISLNK(entry.mode):
            self._place_link(entry, path)
            return 0
        self.tree.add_file(path)
        reason_code = self._reason_to_skip(entry, path)
        if reason_code:
            self._skip(entry, path, reason_code)
            return 0
        self.limits.check_member(entry.size_bytes, path)
        self.wanted_folders.add(path.rpartition("/")[0])
        self.files.append(
            PlannedFile(
                path, entry.position, self.data_at[entry.position], entry.packed_bytes, entry.size_bytes, entry.crc,
                entry.method, entry.seal,
            )
        )  # fmt: skip
        return entry.size_bytes

    def _place_directory(self, entry: Entry, path: str) -> None:
        if entry.size_bytes or (entry.packed_bytes and not self._is_empty(entry)):
            raise refuse("DIRECTORY_WITH_DATA", member=path or entry.shown)
        self.directories += 1
        self.tree.add_folder(path)
        if not is_junk(path):
            self.wanted_folders.add(path)

    def _is_empty(self, entry: Entry) -> bool:
        """Say whether packed bytes come to nothing, as with the streams that some writers give to folders."""
        if entry.packed_bytes > _EMPTY_STREAM_BYTES or entry.method not in METHODS:
            return False
        packed = self.source.peek(self.data_at[entry.position], entry.packed_bytes)
        return not decode_whole(packed, 0, entry.method, entry.shown, entry.seal)

    def _place_link(self, entry: Entry, path: str) -> None:
        """A link is never made. One that leads elsewhere shows what the archive is after, and refuses it."""
        self.tree.add_link(path)
        if _leads_out(path, self._target_of(entry)):
            raise refuse("SYMLINK_ESCAPES", member=path)
        self._skip(entry, path, "SYMLINK")

    def _remember(self, entry: Entry, path: str, reading: Reading) -> None:
        """Keep what the path was made of, unless that is plain to see."""
        key = folded(path)
        remarks = remarks_on(path, key)
        if remarks or path != reading.text or reading.encoding != UTF8:
            self.names[entry.position] = NameOrigin(entry.raw_name, reading.encoding, reading.confidence, remarks)
        if key != path:
            self.folded[key] = self.folded.get(key, 0) + 1

    def _remark_on_alike(self) -> None:
        """Mark what a volume without case would take for one; where it does, writing refuses the archive."""
        alike = {key for key, count in self.folded.items() if count > 1 or self.tree.has_file(key)}
        if not alike:
            return
        places = [(file.position, file.path) for file in self.files]
        for position, path in [*places, *((member.position, member.path) for member in self.skipped)]:
            key = folded(path)
            if key in alike:
                origin = self.names.get(position) or NameOrigin(path.encode(), UTF8)
                self.names[position] = replace(origin, remarks=(*origin.remarks, SAME_FOLDED), folded=key)

    def _target_of(self, entry: Entry) -> str:
        if entry.size_bytes > MAX_LINK_BYTES or entry.method not in METHODS:
            raise refuse("SYMLINK_ESCAPES", "its target is no path", entry.shown)
        return b"".join(self._content_of(entry)).decode("utf-8", "surrogateescape")

    def _content_of(self, entry: Entry) -> Iterator[bytes]:
        return decoded(self.source, entry, self.data_at[entry.position], entry.shown)

    @staticmethod
    def _reason_to_skip(entry: Entry, path: str) -> str:
        is_input = stat.S_ISFIFO(entry.mode) and entry.size_bytes  # what Info-ZIP makes of its standard input
        if entry.mode not in {0, stat.S_IFREG} and not is_input:
            return "SPECIAL_FILE"
        if is_junk(path):
            return "JUNK"
        if entry.method not in METHODS or entry.flags & PATCHED:
            return "UNSUPPORTED_METHOD"
        return ""

    def _skip(self, entry: Entry, path: str, reason_code: str) -> None:
        tells_its_end = entry.method in METHODS and entry.method != STORED
        if tells_its_end and reason_code != "SYMLINK":  # whose target was read
            self._check_stream(entry, path)
        self.skipped.append(SkippedMember(path, reason_code, entry.size_bytes, entry.position))

    def _check_stream(self, entry: Entry, path: str) -> None:
        """Refuse a skipped member whose stream ends early: who walks the archive would go on there, and find more."""
        self.limits.check_member(entry.size_bytes, path)
        self.inflated_bytes += entry.size_bytes
        self.limits.check_total(self.inflated_bytes, self.source.size)
        for _ in self._content_of(entry):
            self.source.look_up()

    def _name_the_nameless(self) -> None:
        """Each skipped member has a row of its own; where what can be shown of names is alike, the position differs."""
        for entry, reason_code in self.nameless:
            shown = shown_name(entry.name)
            while not shown or not self.tree.add_shown(shown):
                shown = f"{shown}#{entry.position}"
            self._skip(entry, shown, reason_code)

    def _folders(self) -> Iterator[str]:
        made: set[str] = set()
        for wanted in self.wanted_folders:
            folder = wanted
            while folder and folder not in made:
                made.add(folder)
                yield folder
                folder = folder.rpartition("/")[0]


def _leads_out(link: str, target: str) -> bool:
    if not target or target.startswith(("/", "\\")) or "\0" in target:
        return True
    depth = link.count("/")
    for part in target.replace("\\", "/").split("/"):
        depth += -1 if part == ".." else part not in {"", "."}
        if depth < 0:
            return True
    return False
