"""What the common archivers write of a small tree is taken: every name and every byte of it."""

import pytest
from packing import FILES_ALONE, TREE, WORDS, Writer, named
from zips import tree

from inbox.core.errors import ArchiveRefusedError

ZIP, SEVEN_ZIP, BSDTAR, GIT = (f"command -v {program}" for program in ("zip", "7z", "bsdtar", "git"))
PACK_GIT = 'export GIT_DIR="$SCRATCH/.git" && git init -q && git --work-tree=. add -A && tree=$(git write-tree) && git '
FIND = "find . -type f -print0 | xargs -0 "
SQLITE = (
    "sqlite3 :memory: \"select writefile('$OUT', zipfile(name, mode, mtime, data)) from fsdir('.') where name <> '.'\""
)
ZIPTOOL = (
    'find . -mindepth 1 -type d -printf "%P\\n" | while read -r f; do ziptool -- "$OUT" add_dir "$f"; done && '
    'find . -type f -printf "%P\\n" | while read -r f; do ziptool -- "$OUT" add_file "$f" "$f" 0 -1; done'
)

ARCHIVERS = named(
    Writer("Info-ZIP", ZIP, 'zip -q -r "$OUT" .'),
    Writer("Info-ZIP, to a pipe", ZIP, 'zip -q -r - . | cat > "$OUT"'),
    Writer("Info-ZIP, descriptors forced", ZIP, 'zip -q -r -fd "$OUT" .'),
    Writer("Info-ZIP, Zip64 forced", ZIP, 'zip -q -r -fz "$OUT" .'),
    Writer("Info-ZIP, no Zip64, to a pipe", ZIP, 'zip -q -r -fz- - . | cat > "$OUT"'),
    Writer("Info-ZIP, stored", ZIP, 'zip -q -r -0 "$OUT" .'),
    Writer("Info-ZIP, stored, to a pipe", ZIP, 'zip -q -r -0 - . | cat > "$OUT"'),
    Writer("Info-ZIP, bzip2", ZIP, 'zip -q -r -Z bzip2 "$OUT" .'),
    Writer("Info-ZIP, comments", ZIP, 'zip -q -r "$OUT" . && echo größe | zip -q -z "$OUT"'),
    Writer("Info-ZIP, no extra fields", ZIP, 'zip -q -r -X "$OUT" .'),
    Writer("Info-ZIP, offsets adjusted", ZIP, 'zip -q -r "$OUT" . && zip -q -A "$OUT"'),
    Writer("Info-ZIP, names flagged as UTF-8", ZIP, 'zip -q -r -UN=UTF8 "$OUT" .'),
    Writer("Info-ZIP, no entries for folders", ZIP, 'zip -q -r -D "$OUT" .', tree=FILES_ALONE),
    Writer("Info-ZIP, grown", ZIP, 'zip -q "$OUT" empty.txt && zip -q -r "$OUT" .'),
    Writer("Info-ZIP, grown with room between", ZIP, 'zip -q -r "$OUT" . && zip -q -g "$OUT" docs/words.txt'),
    Writer("Info-ZIP, from a pipe", ZIP, 'cat docs/words.txt | zip -q "$OUT" -', {"-": WORDS}),
    Writer("Info-ZIP, from a pipe to a pipe", ZIP, 'cat docs/words.txt | zip -q | cat > "$OUT"', {"-": WORDS}),
    Writer("Info-ZIP, names from a pipe", ZIP, 'find . | zip -q "$OUT" -@'),
    Writer("7-Zip", SEVEN_ZIP, '7z a -bd -y "$OUT" .'),
    Writer("7-Zip, by its names", SEVEN_ZIP, '7z a -bd -y "$OUT" *'),
    Writer("7-Zip, bzip2", SEVEN_ZIP, '7z a -bd -y -mm=BZip2 "$OUT" .'),
    Writer("7-Zip, LZMA", SEVEN_ZIP, '7z a -bd -y -mm=LZMA "$OUT" .'),
    Writer("7-Zip, Deflate64", SEVEN_ZIP, '7z a -bd -y -mm=Deflate64 "$OUT" .'),
    Writer("7-Zip, XZ", SEVEN_ZIP, '7z a -bd -y -mm=xz "$OUT" .'),
    Writer("7-Zip, stored", SEVEN_ZIP, '7z a -bd -y -mx=0 "$OUT" .'),
    Writer("7-Zip, names flagged as UTF-8", SEVEN_ZIP, '7z a -bd -y -mcu=on "$OUT" .'),
    Writer("7-Zip, names of the code page", SEVEN_ZIP, '7z a -bd -y -mcl=on "$OUT" .'),
    Writer("7-Zip, no times", SEVEN_ZIP, '7z a -bd -y -mtc=off -mta=off -mtm=off "$OUT" .'),
    Writer("7-Zip, to a pipe", SEVEN_ZIP, '7z a -bd -y -tzip -so dummy . > "$OUT"'),
    Writer("bsdtar", BSDTAR, 'bsdtar --format zip -cf "$OUT" *'),
    Writer("bsdtar, of the folder itself", BSDTAR, 'bsdtar --format zip -cf "$OUT" .'),
    Writer("bsdtar, by the archive's name", BSDTAR, 'bsdtar -a -cf "$SCRATCH/a.zip" . && mv "$SCRATCH/a.zip" "$OUT"'),
    Writer("bsdtar, to a pipe", BSDTAR, 'bsdtar --format zip -cf - . | cat > "$OUT"'),
    Writer("bsdtar, stored", BSDTAR, 'bsdtar --format zip --options zip:compression=store -cf "$OUT" .'),
    Writer("bsdtar, Zip64 forced", BSDTAR, 'bsdtar --format zip --options zip:zip64 -cf "$OUT" .'),
    Writer("bsdtar, Zip64 forced, to a pipe", BSDTAR, 'bsdtar --format zip --options zip:zip64 -cf - . | cat > "$OUT"'),
    Writer("bsdtar, no Zip64, to a pipe", BSDTAR, 'bsdtar --format zip --options "!zip64" -cf - . | cat > "$OUT"'),
    Writer("git archive", GIT, PACK_GIT + 'archive --format=zip -o "$OUT" $tree', tree=FILES_ALONE),
    Writer("git archive, stored", GIT, PACK_GIT + 'archive --format=zip -0 $tree > "$OUT"', tree=FILES_ALONE),
    Writer(
        "git archive, streamed",
        GIT,
        PACK_GIT + '-c core.bigFileThreshold=1k archive --format=zip $tree > "$OUT"',
        FILES_ALONE,
    ),
    Writer("fastjar", "command -v fastjar", 'fastjar -c -M -f "$OUT" *'),
    Writer("fastjar, stored", "command -v fastjar", 'fastjar -c -0 -M -f "$OUT" *'),
    Writer("SQLite", "command -v sqlite3", SQLITE),
    Writer(
        "zipalign",
        f"command -v zipalign && {ZIP}",
        'zip -q -r -0 "$SCRATCH/a.zip" . && zipalign 4096 "$SCRATCH/a.zip" "$OUT"',
    ),
    Writer("libzip's ziptool", "command -v ziptool", ZIPTOOL),
    Writer("minizip", "command -v minizip", FIND + 'minizip "$OUT"', tree=FILES_ALONE),
    Writer("minizip, stored", "command -v minizip", FIND + 'minizip -0 "$OUT"', tree=FILES_ALONE),
    Writer(
        "AdvanceCOMP",
        "command -v advzip",
        FIND + 'advzip -q -a -2 "$OUT"',
        {k.rpartition("/")[2]: v for k, v in TREE.items() if v is not None},
    ),
    Writer("AdvanceCOMP, of another's", f"command -v advzip && {ZIP}", 'zip -q -r "$OUT" . && advzip -q -z -2 "$OUT"'),
)


@pytest.mark.parametrize("writer", ARCHIVERS)
def test_archivers_tree_is_taken(taken, pack, writer):
    """
    Whatever archiver packed the tree, and however it was asked to, just that tree comes out.
    """
    data = pack(writer, TREE)

    assert writer.tree == taken(data)


@pytest.mark.parametrize("content", [{}, {"a": None, "a/b": None}], ids=["nothing", "folders alone"])
@pytest.mark.parametrize(
    "writer",
    named(
        Writer("7-Zip", SEVEN_ZIP, '7z a -bd -y "$OUT" .'),
        Writer("bsdtar", BSDTAR, 'bsdtar --format zip -cf "$OUT" .'),
        Writer("bsdtar, to a pipe", BSDTAR, 'find . -mindepth 1 | bsdtar --format zip -cf - -T - | cat > "$OUT"'),
    ),
)
def test_archivers_archive_without_files_is_taken(taken, pack, writer, content):
    """
    An archive of nothing, or of folders alone, is taken from every archiver that makes one.
    """
    data = pack(writer, content)

    assert content == taken(data)


def test_method_that_is_not_read_skips_its_members_alone(unpack, pack):
    """
    What 7-Zip packed by a method that is not read here is skipped and named, and what it stored beside it is written.
    """
    data = pack(Writer("7-Zip", SEVEN_ZIP, '7z a -bd -y -mm=PPMd "$OUT" .'), TREE)

    extraction, target = unpack(data)

    skipped = {member.path for member in extraction.skipped}
    assert {"docs/words.txt", "large.bin"} <= skipped
    assert {"UNSUPPORTED_METHOD"} == {member.reason_code for member in extraction.skipped}
    assert {path: content for path, content in TREE.items() if path not in skipped} == tree(target)


@pytest.mark.parametrize(
    "writer",
    named(
        Writer("Info-ZIP, Zip64 forced, to a pipe", ZIP, 'zip -q -r -fz - . | cat > "$OUT"'),
        Writer("fastjar, to a pipe", "command -v fastjar", 'fastjar -c -M * | cat > "$OUT"'),
    ),
)
def test_archive_without_its_directorys_offset_is_refused(judge, unpack, pack, writer):
    """
    An archive whose writer lost count, so that unzip, 7-Zip and Java do not open it either, is refused.
    """
    data = pack(writer, TREE)

    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data)

    assert judge(data).complete
    assert ("BAD_ZIP64", True) == (refused.value.reason_code, refused.value.damaged)
