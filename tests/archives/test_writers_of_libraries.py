"""What the archive libraries of eight languages write of a small tree is taken: every name and every byte of it."""

from dataclasses import replace

import pytest
from packing import FILES_ALONE, RIGS, TREE, Writer, named

EMPTY: dict[str, bytes | None] = {}
FOLDERS = {"a": None, "a/b": None, "c": None}

JAVA = "javac -encoding UTF-8 -d . $WRITERS/ArchiveWriter.java"
JARS = "/usr/share/java"
GO = "GOCACHE=$PWD/cache GO111MODULE=off go build -o . $WRITERS/archivewriter.go"
MONO = "mcs -out:ArchiveWriter.exe -r:System.IO.Compression,System.IO.Compression.FileSystem $WRITERS/ArchiveWriter.cs"
MONO_PROBE = "command -v mono && command -v mcs && test -d /usr/lib/mono/gac/System.IO.Compression.FileSystem"
JAVASCRIPT = f'cp $WRITERS/archivewriter.mjs . && ln -s "{RIGS}/node_modules" .'
PHP_PROBE = "php -r 'exit((int) !class_exists(\"ZipArchive\"));'"


def java(variant: str) -> Writer:
    command = f'java -XX:TieredStopAtLevel=1 -cp "$BUILT" ArchiveWriter {variant} . "$OUT"'
    return Writer(f"Java, {variant}", "command -v javac", command, build=JAVA)


def java_library(library: str, jar: str, variant: str) -> Writer:
    path = f'"$BUILT:{JARS}/commons-compress.jar:{JARS}/zip4j.jar"'
    return Writer(
        f"{jar}, {variant}",
        f"command -v javac && test -e {JARS}/{jar}.jar && test -e {JARS}/zip4j.jar",
        f'java -XX:TieredStopAtLevel=1 -cp {path} LibraryWriter {library} {variant} "$PWD" "$OUT"',
        build=f"javac -d . -cp {JARS}/commons-compress.jar:{JARS}/zip4j.jar $WRITERS/LibraryWriter.java",
    )


def jar(variant: str, options: str) -> Writer:
    return Writer(f"jar, {variant}", "command -v jar", f"jar --create --no-manifest {options}")


def go(variant: str) -> Writer:
    return Writer(f"Go, {variant}", "command -v go", f'"$BUILT"/archivewriter {variant} . "$OUT"', build=GO)


def mono(variant: str) -> Writer:
    return Writer(f"Mono, {variant}", MONO_PROBE, f'mono "$BUILT"/ArchiveWriter.exe {variant} . "$OUT"', build=MONO)


def javascript(library: str, variant: str) -> Writer:
    probe = f'command -v node && test -d "{RIGS}/node_modules/{library}"'
    command = f'node "$BUILT"/archivewriter.mjs {library}:{variant} . "$OUT"'
    return Writer(f"{library}, {variant}", probe, command, build=JAVASCRIPT)


def perl(module: str, variant: str) -> Writer:
    return Writer(
        f"{module}, {variant}", f"perl -M{module} -e 1", f'perl "$WRITERS/archivewriter.pl" {variant} "$PWD" "$OUT"'
    )


def php(variant: str) -> Writer:
    return Writer(f"PHP, {variant}", PHP_PROBE, f'php "$WRITERS/archivewriter.php" {variant} "$PWD" "$OUT"')


def ruby(variant: str) -> Writer:
    return Writer(f"rubyzip, {variant}", "ruby -rzip -e 1", f'ruby "$WRITERS/archivewriter.rb" {variant} "$PWD" "$OUT"')


PLAIN = (
    java("deflated"),
    go("streamed"),
    mono("stored"),
    javascript("jszip", "deflated"),
    javascript("archiver", "buffers"),
    javascript("yazl", "files"),
    javascript("adm-zip", "plain"),
    javascript("fflate", "plain"),
    javascript("@zip.js/zip.js", "plain"),
    javascript("client-zip", "plain"),
    perl("Archive::Zip", "members"),
    ruby("file"),
)
LIBRARIES = (
    *PLAIN,
    *map(java, ("stored", "commented", "file-system")),
    *(
        java_library("commons", "commons-compress", variant)
        for variant in (
            "seekable",
            "streamed",
            "zip64",
            "zip64-streamed",
            "stored",
            "unicode-paths",
            "code-page",
            "aligned",
        )
    ),
    *(java_library("zip4j", "zip4j", variant) for variant in ("files", "stored", "streamed")),
    jar("to a file", '--file "$OUT" .'),
    jar("to a pipe", '. | cat > "$OUT"'),
    jar("stored", '--no-compress --file "$OUT" .'),
    *map(go, ("stored", "raw", "commented")),
    *map(mono, ("folder", "streamed")),
    *(javascript("jszip", variant) for variant in ("stored", "streamed", "unix", "commented")),
    *(javascript("archiver", variant) for variant in ("streams", "stored", "zip64", "commented")),
    *(javascript("yazl", variant) for variant in ("streams", "buffers", "stored", "zip64", "commented")),
    javascript("adm-zip", "commented"),
    *(javascript("fflate", variant) for variant in ("stored", "streamed")),
    *(javascript("@zip.js/zip.js", variant) for variant in ("stored", "zip64", "seekable", "unsigned", "unix")),
    javascript("client-zip", "sized"),
    javascript("jszip-old", "deflated"),
    *(javascript("archiver-old", variant) for variant in ("buffers", "streams", "zip64")),
    *(replace(javascript("yazl-old", variant), tree=FILES_ALONE) for variant in ("files", "streams")),
    javascript("adm-zip-old", "plain"),
    *(javascript("fflate-old", variant) for variant in ("plain", "streamed")),
    *(
        perl("IO::Compress::Zip", variant)
        for variant in ("seekable", "streamed", "stored", "zip64", "zip64-streamed", "bzip2")
    ),
    *map(php, ("deflated", "stored", "bzip2", "commented", "contents")),
    *map(ruby, ("stream", "zip64", "stored")),
)


@pytest.mark.parametrize("writer", named(*LIBRARIES))
def test_librarys_tree_is_taken(taken, pack, writer):
    """
    Whatever library packed the tree, and in whichever of its ways, just that tree comes out.
    """
    data = pack(writer, TREE)

    assert writer.tree == taken(data)


@pytest.mark.parametrize("content", [EMPTY, FOLDERS], ids=["nothing", "folders alone"])
@pytest.mark.parametrize("writer", named(*PLAIN))
def test_librarys_archive_without_files_is_taken(taken, pack, writer, content):
    """
    An archive of nothing, or of folders alone, is taken from every library that makes one.
    """
    data = pack(writer, content)

    assert content == taken(data)


def test_jar_with_its_manifest_is_taken(taken, pack):
    """
    A JAR, whose first member has a field of no content, gives the manifest and the tree.
    """
    data = pack(Writer("jar", "command -v jar", 'jar --create --file "$OUT" .'), TREE)

    found = taken(data)

    assert found.pop("META-INF/MANIFEST.MF").startswith(b"Manifest-Version")
    assert {"META-INF": None} | TREE == found
