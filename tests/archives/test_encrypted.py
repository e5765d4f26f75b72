"""Encrypted members are read when a known password opens them; else the archive is refused, and no password told."""

import pickle
import subprocess
from itertools import count
from shutil import which

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sealing import (
    AES_METHOD,
    ENCRYPTED_FLAG,
    PASSWORD,
    aes_field,
    encrypt_by_aes,
    encrypt_traditionally,
    locked,
    locked_by_aes,
)
from zips import (
    BZIP2,
    DEFLATE64,
    DEFLATED,
    DESCRIPTOR_FLAG,
    LINK,
    LZMA,
    STORED,
    XZ,
    ZSTD,
    Member,
    archive,
    opened,
    pack,
    tree,
)

from inbox.archives import Passwords, Terms, plan_extraction
from inbox.archives.decoding import decode_whole
from inbox.archives.encryption import Seal, WrongPasswordError, aes_seal, check_password, traditional_seal
from inbox.core.errors import ArchiveRefusedError

KNOWN = Passwords(("wrong", PASSWORD, "other"))
TEXT = b"the same words again and again, " * 99
BIG = b"".join(number.to_bytes(4, "big") * 8 for number in range(100_000))

TAKEN = {
    "traditional": locked("a.txt", TEXT),
    "traditional, checked by its time": locked("a.txt", TEXT, flags=DESCRIPTOR_FLAG),
    "traditional, stored": locked("a.txt", TEXT, STORED),
    "AES-128": locked_by_aes("a.txt", TEXT, strength=1),
    "AES-192": locked_by_aes("a.txt", TEXT, strength=2),
    "AES-256": locked_by_aes("a.txt", TEXT, strength=3),
    "AE-1, with its checksum": locked_by_aes("a.txt", TEXT, version=1),
    "AES, with a descriptor": locked_by_aes("a.txt", TEXT, flags=DESCRIPTOR_FLAG),
    "AES, stored": locked_by_aes("a.txt", TEXT, STORED),
    "AES over bzip2": locked_by_aes("a.txt", TEXT, BZIP2),
    "AES over LZMA": locked_by_aes("a.txt", TEXT, LZMA),
    "AES over Zstandard": locked_by_aes("a.txt", TEXT, ZSTD),
    "AES, with a checksum that AE-2 does without": locked_by_aes("a.txt", TEXT, crc=7),
}


def changed(packed: bytes, at: int) -> bytes:
    data = bytearray(packed)
    data[at] ^= 1
    return bytes(data)


AES_STORED = encrypt_by_aes(TEXT)

REFUSED = {
    "AES, a bit of the data changed": (locked_by_aes("a", TEXT, STORED, packed=changed(AES_STORED, 99)), "BAD_DATA"),
    "AES, a bit of the code changed": (locked_by_aes("a", TEXT, STORED, packed=changed(AES_STORED, -1)), "BAD_DATA"),
    "AES, a bit of the salt changed": (locked_by_aes("a", TEXT, STORED, packed=changed(AES_STORED, 0)), "ENCRYPTED"),
    "AES, nothing but the code changed": (locked_by_aes("a", b"", packed=changed(encrypt_by_aes(b""), -1)), "BAD_DATA"),
    "AE-1, another checksum": (locked_by_aes("a", TEXT, version=1, crc=7), "BAD_CRC"),
    "AES, the stream does not end": (
        locked_by_aes("a", TEXT, packed=encrypt_by_aes(pack(TEXT, DEFLATED) + b"!")),
        "BAD_DATA",
    ),
    "AES, a larger size": (locked_by_aes("a", TEXT, size=len(TEXT) + 1), "SIZE_LIES"),
    "AES, a smaller size": (locked_by_aes("a", TEXT, size=len(TEXT) - 1), "SIZE_LIES"),
    "AES, stored and of two sizes": (locked_by_aes("a", TEXT, STORED, size=len(TEXT) + 28), "SIZE_LIES"),
    "traditional, stored and of two sizes": (locked("a", TEXT, STORED, size=len(TEXT) + 12), "SIZE_LIES"),
    "AES, no field": (locked_by_aes("a", TEXT, extra=b""), "BAD_EXTRA_FIELD"),
    "AES, two fields": (locked_by_aes("a", TEXT, extra=2 * aes_field()), "BAD_EXTRA_FIELD"),
    "AES, a field cut short": (locked_by_aes("a", TEXT, extra=b"\x01\x99\x03\0\2\0A"), "BAD_EXTRA_FIELD"),
    "AES of a third version": (locked_by_aes("a", TEXT, extra=aes_field(version=3)), "BAD_EXTRA_FIELD"),
    "AES of another vendor": (locked_by_aes("a", TEXT, extra=aes_field(vendor=b"EA")), "BAD_EXTRA_FIELD"),
    "AES of no strength": (locked_by_aes("a", TEXT, extra=aes_field(strength=0)), "BAD_EXTRA_FIELD"),
    "AES, no local field": (locked_by_aes("a", TEXT, local_extra=b""), "HEADERS_DIFFER"),
    "AES, another local strength": (locked_by_aes("a", TEXT, local_extra=aes_field(strength=1)), "HEADERS_DIFFER"),
    "AES, another local method": (locked_by_aes("a", TEXT, local_extra=aes_field(STORED)), "HEADERS_DIFFER"),
    "AES, a local field cut short": (locked_by_aes("a", TEXT, local_extra=b"\x01\x99\xff\0"), "BAD_EXTRA_FIELD"),
    "AES, another method in the local header": (locked_by_aes("a", TEXT, local_method=DEFLATED), "HEADERS_DIFFER"),
    "encrypted, not so in the local header": (locked("a", TEXT, local_flags=0), "HEADERS_DIFFER"),
    "too short for the traditional encryption": (locked("a", TEXT, packed=bytes(11)), "BAD_DATA"),
    "too short for AES": (locked_by_aes("a", TEXT, packed=bytes(27)), "BAD_DATA"),
    "nothing where something should be": (locked("a", TEXT, STORED, packed=b""), "BAD_DATA"),
    "strong encryption": (locked("a", TEXT, flags=1 << 6), "ENCRYPTED"),
    "masked headers": (locked("a", TEXT, flags=1 << 13), "ENCRYPTED"),
    "a link that leads out": (locked_by_aes("a", b"../../etc/passwd", mode=LINK), "SYMLINK_ESCAPES"),
}


def code_of(unpack, members, passwords=KNOWN) -> str:
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive(members), passwords=passwords)
    return refused.value.reason_code


@pytest.mark.parametrize("kind", TAKEN)
def test_encrypted_members_are_read(unpack, kind):
    """
    Whatever the encryption, its strength and the compression below it, the right password opens the member.
    """
    extraction, target = unpack(archive([TAKEN[kind], "clear.txt"]), passwords=KNOWN)

    assert {"a.txt": TEXT, "clear.txt": b"content"} == tree(target)
    assert [len(TEXT), 7] == [file.size_bytes for file in extraction.files]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_right_is_refused(unpack, kind):
    """
    Damage, contradictions and encryptions that are not read refuse the archive, each under its code.
    """
    member, code = REFUSED[kind]

    assert code == code_of(unpack, [member])


def test_big_members_are_read_in_pieces(unpack):
    """
    Members that do not fit into one piece are decrypted piece by piece.
    """
    members = [
        locked("stored", BIG, STORED),
        locked("deflated", BIG),
        locked_by_aes("stored by AES", BIG, STORED),
        locked_by_aes("deflated by AES", BIG),
    ]

    _, target = unpack(archive(members), passwords=KNOWN)

    assert {member.name.decode(): BIG for member in members} == tree(target)


def test_big_member_is_authenticated(unpack):
    """
    A bit that was changed in a member too big for one piece refuses the archive when all of it has been read.
    """
    packed = changed(encrypt_by_aes(BIG), len(BIG) // 2)

    assert "BAD_DATA" == code_of(unpack, ["a", locked_by_aes("big", BIG, STORED, packed=packed)])


@pytest.mark.parametrize("make", [locked, locked_by_aes])
def test_nothing_can_be_encrypted(unpack, make):
    """
    An empty file is one, encrypted or only said to be.
    """
    empty = Member("said to be", b"", STORED, flags=ENCRYPTED_FLAG)

    _, target = unpack(archive([make("empty", b"", STORED), empty]), passwords=KNOWN)

    assert {"empty": b"", "said to be": b""} == tree(target)


@pytest.mark.parametrize("make", [locked, locked_by_aes])
def test_without_passwords_the_setting_is_named(unpack, make):
    """
    An encrypted archive that nobody gave a password for is refused at once, with a hint at the setting.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive([make("a.txt")]))

    assert ("ENCRYPTED", False) == (refused.value.reason_code, refused.value.damaged)
    assert "ARCHIVE_PASSWORDS_FILE" in str(refused.value)


@pytest.mark.parametrize("make", [locked, locked_by_aes])
def test_when_no_password_fits_none_is_told(unpack, make):
    """
    When none fits the refusal says how many were tried, and not which; an unfinished copy would look the same.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive([make("a.txt")]), passwords=Passwords(("hunter2", "hunter3")))

    assert ("ENCRYPTED", True) == (refused.value.reason_code, refused.value.damaged)
    assert "none of the 2 passwords fits" in str(refused.value)
    assert "hunter" not in repr(refused.value)


@pytest.mark.parametrize("make", [locked, locked_by_aes])
def test_one_archive_has_one_password(unpack, make):
    """
    Members under different passwords refuse the archive, whether the other one is among the first or far behind.
    """
    few = [make("a.txt"), make("b.txt", password="other")]
    many = [*(make(f"{number}.txt") for number in range(9)), make("z.txt", password="other")]

    assert ("ENCRYPTED", "ENCRYPTED") == (code_of(unpack, few), code_of(unpack, many))


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_password_that_fits_by_chance_is_passed_over(unpack, method):
    """
    One in 256 wrong passwords passes the check of the traditional encryption; the content tells it from the right one.
    """
    member = locked("a.txt", TEXT, method)
    chance = next(word for word in map(str, count()) if passes(member, word))

    _, target = unpack(archive([member]), passwords=Passwords((chance, PASSWORD)))

    assert {"a.txt": TEXT} == tree(target)
    assert "ENCRYPTED" == code_of(unpack, [member], Passwords((chance,)))


def passes(member: Member, word: str) -> bool:
    try:
        check_password(traditional_seal(member.crc >> 24, word.encode()), member.packed[:12])
    except WrongPasswordError:
        return False
    return True


def test_damage_is_told_from_a_wrong_password(unpack):
    """
    With several members the password is certain, so a damaged content is called that.
    """
    damaged = locked(
        "a.txt", TEXT, STORED, packed=changed(encrypt_traditionally(TEXT, locked("a", TEXT).crc >> 24), 99)
    )

    assert "BAD_CRC" == code_of(unpack, [damaged, locked("b.txt", BIG), locked("c.txt", BIG)])


def test_members_that_are_not_written_keep_their_reasons(unpack):
    """
    A link is read and skipped, and so is what is compressed in a way that is not read, whatever encrypts it.
    """
    members = [
        locked_by_aes("link", b"a.txt", mode=LINK),
        locked_by_aes("unknown", extra=aes_field(97)),
        Member("no AES", method=AES_METHOD),
    ]

    extraction, target = unpack(archive(members), passwords=KNOWN)
    alone, _ = unpack(archive(members[1:2]), passwords=KNOWN)

    assert {} == tree(target)
    assert ["SYMLINK", "UNSUPPORTED_METHOD", "UNSUPPORTED_METHOD"] == [one.reason_code for one in extraction.skipped]
    assert ["UNSUPPORTED_METHOD"] == [one.reason_code for one in alone.skipped]


def test_passwords_travel_and_are_shown_nowhere(tmp_path):
    """
    Passwords and plans reach another process as they are, and no repr shows a password.
    """
    with opened(tmp_path, archive([locked("a.txt"), locked_by_aes("b.txt")])) as fd:
        plan = plan_extraction(fd, Terms(passwords=KNOWN))

    assert (KNOWN, plan) == pickle.loads(pickle.dumps((KNOWN, plan)))
    assert [PASSWORD.encode()] * 2 == [file.seal.password for file in plan.files]
    assert PASSWORD not in f"{KNOWN!r} {KNOWN} {plan!r} {plan}"


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=500),
    method=st.sampled_from([STORED, DEFLATED, DEFLATE64, BZIP2, LZMA, XZ, ZSTD]),
    strength=st.integers(0, 3),
    password=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_whatever_was_sealed_comes_out(content, method, strength, password):
    """
    Any content under any password, encryption and method is what it was.
    """
    packed = pack(content, method)
    if strength:
        sealed, (seal, _) = encrypt_by_aes(packed, strength, password), aes_seal(aes_field(method, strength)[4:])
    else:
        sealed, seal = encrypt_traditionally(packed, 7, password), traditional_seal(7)
    seal = Seal(seal.strength, seal.check_byte, seal.has_crc, password.encode())

    assert content == decode_whole(sealed, len(content), method, "a.txt", seal)
    assert len(sealed) == len(packed) + seal.overhead_bytes


PROGRAMS = {
    "7z, AES-256": "7z a -bd -y -tzip -mem=AES256 -psesame out.zip .",
    "7z, AES-192 over LZMA": "7z a -bd -y -tzip -mem=AES192 -mm=LZMA -psesame out.zip .",
    "7z, AES-128 over bzip2": "7z a -bd -y -tzip -mem=AES128 -mm=BZip2 -psesame out.zip .",
    "7z, traditional": "7z a -bd -y -tzip -mem=ZipCrypto -psesame out.zip .",
    "zip": "zip -q -r -X -P sesame out.zip .",
    "zip, streamed": "zip -q -r -P sesame - . > ../out.zip && mv ../out.zip out.zip",
    "bsdtar, AES-256": "bsdtar --format zip --options zip:encryption=aes256 --passphrase sesame -cf out.zip *",
    "bsdtar, AES-128, streamed": "bsdtar --format zip --options zip:encryption=aes128 --passphrase sesame -cf - * "
    "> ../out.zip && mv ../out.zip out.zip",
    "bsdtar, traditional": "bsdtar --format zip --options zip:encryption=zipcrypt --passphrase sesame -cf out.zip *",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_encrypted_archives_of_other_programs_are_taken(unpack, tmp_path, program):
    """
    What the common command-line programs encrypt is read, content for content.
    """
    command = PROGRAMS[program]
    tool = command.partition(" ")[0]
    if which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    made = {"a.txt": TEXT, "empty.txt": b"", "folder/big.txt": BIG, "folder/small.txt": b"s"}
    for path, content in made.items():
        (source / path).write_bytes(content)
    subprocess.run(["sh", "-c", command], cwd=source, check=True, capture_output=True)

    extraction, target = unpack((source / "out.zip").read_bytes(), passwords=KNOWN)

    assert made == {path: content for path, content in tree(target).items() if content is not None}
    assert () == extraction.skipped
