"""What members' names are read as: by their mark, by themselves, by a code page that is set or found."""

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zips import UTF8_FLAG, Member, archive, opened, unicode_path

from inbox.archives import Terms, plan_extraction, require_code_page
from inbox.core.errors import ArchiveRefusedError

LEGACY = {
    "cp932": ["資料/見積書.xlsx", "写真/東京タワー.jpg", "ソース/予定表", "新しいフォルダー/会議メモ.txt"],
    "gb18030": ["资料/报价单.xlsx", "照片/北京天安门.jpg", "新建文件夹/说明.txt"],
    "big5hkscs": ["資料/報價單.xlsx", "照片/台北101.jpg", "新增資料夾/說明文件.txt"],
    "cp949": ["자료/견적서.xlsx", "사진/서울.jpg", "새 폴더/회의록.doc"],
    "cp866": ["документы/Счёт.xlsx", "Фото/Москва.jpg", "Новая папка/Отчёт.txt"],
    "cp1251": ["документы/Счёт.xlsx", "Фото/Москва.jpg", "Новая папка/Отчёт.txt"],
    "cp437": ["Übersicht.txt", "Größe/Äpfel.doc", "élève/leçon.doc", "señor.txt"],
    "cp850": ["Ação/São Paulo.txt", "João.doc"],
    "cp852": ["Łódź/zdjęcie.jpg", "příliš žluťoučký kůň.txt"],
}


@pytest.fixture
def plan(tmp_path):
    def run(members, **options):
        with opened(tmp_path, archive(members)) as fd:
            return plan_extraction(fd, Terms(**options))

    return run


def names_of(plan):
    return [file.path for file in sorted(plan.files, key=lambda file: file.position)]


@pytest.mark.parametrize("page", LEGACY)
def test_legacy_names_come_out_readable(plan, page):
    """
    Unmarked names in a code page of the region are found out by what all of them look like, and that is kept with them.
    """
    made = plan([Member(name.encode(page)) for name in LEGACY[page]])

    assert LEGACY[page] == names_of(made)
    assert {page} == {origin.encoding for origin in made.names.values()}
    assert all(0 < origin.confidence <= 1 for origin in made.names.values())
    assert [name.encode(page) for name in LEGACY[page]] == [made.names[at].raw for at in range(len(LEGACY[page]))]


@pytest.mark.parametrize("page", LEGACY)
def test_configured_code_page_decides(plan, page):
    """
    With a code page set nothing is guessed, not even for a single name of a single character.
    """
    name = LEGACY[page][0]
    made = plan([Member(name.encode(page))], name_encoding=page)

    assert [name] == names_of(made)
    assert (page, None) == (made.names[0].encoding, made.names[0].confidence)


def test_second_byte_of_a_character_is_no_separator(plan):
    """
    In Shift-JIS a character may end with the byte of a backslash: it neither parts a path nor makes a directory.
    """
    made = plan([Member("表/予定表".encode("cp932")), Member("ソ.txt".encode("cp932"))], name_encoding="cp932")

    assert ["表/予定表", "ソ.txt"] == names_of(made)


@pytest.mark.parametrize(("name", "page"), [("表", "cp932"), ("ソ/能", "cp932"), ("許", "cp950")])
def test_backslash_behind_a_first_half_makes_its_page_likely(plan, name, page):
    """
    Where there is too little to go by, a backslash that would make half a letter tells; in Latin names it separates.
    """
    made = plan([Member(name.encode(page))])
    latin = plan([Member("café\\menü.txt".encode("cp437"))])

    assert [name] == names_of(made)
    assert ["café/menü.txt"] == names_of(latin)


def test_unmarked_utf8_is_utf8(plan):
    """
    Names that read as UTF-8 are that, marked or not, whatever code page is set; nothing about them needs keeping.
    """
    made = plan([Member("größe.txt".encode()), Member("日本.txt")], name_encoding="cp932")

    assert ["größe.txt", "日本.txt"] == names_of(made)
    assert {} == made.names


def test_unicode_path_is_said(plan):
    """
    A name from the Unicode path field is kept with the header's own.
    """
    made = plan([Member(b"n_.txt", extra=unicode_path("ñandú.txt", b"n_.txt"))])

    assert ["ñandú.txt"] == names_of(made)
    assert (b"n_.txt", "unicode-path") == (made.names[0].raw, made.names[0].encoding)


def test_cleaned_name_keeps_its_bytes(plan):
    """
    Where the path is not what stands in the archive, the bytes that stand there are kept.
    """
    made = plan(["a\\b.txt", "./c.txt", "d.txt"])

    assert {0: b"a\\b.txt", 1: b"./c.txt"} == {position: origin.raw for position, origin in made.names.items()}


def test_skipped_name_keeps_its_bytes(plan):
    """
    A name under which nothing can be written is shown in a safe form, and kept as it is.
    """
    made = plan([Member(b"\xff\xfe", flags=UTF8_FLAG), Member(b"a\x1b[2J"), "ok"])

    assert ["BAD_NAME_ENCODING", "UNSAFE_NAME"] == [member.reason_code for member in made.skipped]
    assert [b"\xff\xfe", b"a\x1b[2J"] == [made.names[member.position].raw for member in made.skipped]


def test_name_that_the_page_cannot_read_is_read_by_the_formats_own(plan):
    """
    A code page that does not fit some name does not stop the archive.
    """
    made = plan([Member(b"\x81 .txt")], name_encoding="cp932")

    assert ["ü .txt"] == names_of(made)
    assert ("cp437", 0.0) == (made.names[0].encoding, made.names[0].confidence)


@pytest.mark.parametrize(
    "name",
    ["CON", "docs/nul.txt", "COM1.log", "lpt9", "a.", "a ", "b./c", "d /e", "xx:y", "a?b", 'a"b', "a|b", "a<b", "a*"],
)
def test_name_that_windows_cannot_have_is_taken_and_marked(plan, name):
    """
    It does no harm here; a reader of the share on Windows is warned.
    """
    made = plan([name, "console.txt", "com10", "a.b/c d"])

    assert name == names_of(made)[0]
    assert {0: ("WINDOWS_NAME",)} == {position: origin.remarks for position, origin in made.names.items()}


def test_names_that_differ_by_case_alone_are_marked(plan):
    """
    Members that a volume without case would take for one keep their names, and both say what they fold to.
    """
    alike = ["Makefile", "makefile", "src/ReadMe", "src/README", "Straße", "STRASSE", "caf\u00e9", "cafe\u0301"]
    made = plan([*alike, "readme"])

    assert ["makefile", "makefile", "src/readme", "src/readme", "strasse", "strasse", "caf\u00e9", "caf\u00e9"] == [
        made.names[position].folded for position in range(8)
    ]
    assert 8 == len(made.names)
    assert {("SAME_FOLDED",)} == {origin.remarks for origin in made.names.values()}


def test_names_that_differ_by_case_alone_keep_their_other_remarks(plan):
    """
    What else there is to say of a name stays with it.
    """
    made = plan(["CON", "con"])

    assert {("WINDOWS_NAME", "SAME_FOLDED")} == {origin.remarks for origin in made.names.values()}


@settings(max_examples=100, deadline=None)
@given(
    raws=st.lists(
        st.binary(min_size=1, max_size=20).filter(lambda raw: not {0, 0x2F, 0x5C} & set(raw)), max_size=5, unique=True
    )
)
def test_any_bytes_are_a_name_or_a_reason(tmp_path_factory, raws):
    """
    Whatever bytes a name is made of, each member is a file, is skipped, or the archive is refused for its names.
    """
    with opened(tmp_path_factory.mktemp("names"), archive([Member(raw) for raw in raws])) as fd:
        try:
            made = plan_extraction(fd, Terms())
        except ArchiveRefusedError as error:
            refusal = error.reason_code
        else:
            refusal = None
            assert len(raws) == len(made.files) + len(made.skipped)

    assert refusal in {None, "UNSAFE_PATH", "ABSOLUTE_PATH", "DUPLICATE_NAME"}


def test_detection_reads_what_zipfile_calls_gibberish(tmp_path):
    """
    An archive as Windows' own packer made it in Japan comes out with its names, where Python's reader shows cp437.
    """
    data = archive([Member(name.encode("cp932"), host=0) for name in LEGACY["cp932"]])
    with zipfile.ZipFile(io.BytesIO(data)) as other, opened(tmp_path, data) as fd:
        assert LEGACY["cp932"] != other.namelist()
        assert LEGACY["cp932"] == names_of(plan_extraction(fd, Terms()))


@pytest.mark.parametrize(
    ("name", "page"),
    [("Shift_JIS", "shift_jis"), ("GBK", "gbk"), (" cp866 ", "cp866"), ("IBM437", "cp437"), ("Detect", "detect")],
)
def test_code_page_has_a_normal_name(name, page):
    """
    Any name that Python knows for a code page may be set.
    """
    assert page == require_code_page(name)


@pytest.mark.parametrize(
    "name", ["klingon", "utf-16", "utf-7", "hz", "iso2022_jp", "rot13", "base64", "cp037", "idna", ""]
)
def test_what_is_no_code_page_is_refused(name):
    """
    What does not leave ASCII alone, or turns bytes into something else altogether, could make any name of any bytes.
    """
    with pytest.raises(ValueError, match="is no code page"):
        require_code_page(name)
