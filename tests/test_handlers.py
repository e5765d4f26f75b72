"""Handlers: how they are declared, which files they get, and what their authors import."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import inbox
from inbox.handlers import base
from inbox.handlers.base import FILE_TYPES, File, HandlerSpec, Skip, declared_handlers, handler
from inbox.utils.filetypes import FileType


@pytest.fixture(autouse=True)
def own_declarations(monkeypatch):
    """What a test declares is gone afterwards."""
    monkeypatch.setattr(base, "_declared", [])


def a_file(member_path="docs/a.txt", file_type="text"):
    name = member_path.rpartition("/")[2]
    return File(Path("/x"), name, member_path, file_type, 1, "0" * 64, "d1", "b1", "r1", 1)


def patterns_of(*patterns):
    handler(*patterns)(lambda file: None)
    return declared_handlers()[-1]


@pytest.mark.parametrize(
    ("patterns", "file", "wanted"),
    [
        ((), a_file(), True),
        (("pdf",), a_file("a.pdf", "pdf"), True),
        (("PDF",), a_file("a.pdf", "pdf"), True),
        (("pdf",), a_file("a.pdf", "unknown"), False),
        (("pdf",), a_file("pdf", "text"), False),
        (("*.csv",), a_file("deep/A.CSV"), True),
        (("*.CSV",), a_file("a.csv"), True),
        (("*.csv",), a_file("a.csv.gz"), False),
        (("STRASSE*",), a_file("Straße.txt"), True),
        (("[ab].txt",), a_file("b.txt"), True),
        (("?.txt",), a_file("ab.txt"), False),
        (("reports/*.csv",), a_file("reports/a.csv"), True),
        (("reports/*.csv",), a_file("reports/2024/a.csv"), True),
        (("reports/*.csv",), a_file("other/a.csv"), False),
        (("pdf", "*.csv"), a_file("a.csv"), True),
        (("word", "excel"), a_file(), False),
    ],
)
def test_patterns_choose_files(patterns, file, wanted):
    """
    A handler gets the files of its types and those whose name or path matches its globs, in any case of letters.
    """
    assert wanted is patterns_of(*patterns).wants(file)


@given(pattern=st.text(st.sampled_from("aA*?[]!-/.ß"), min_size=1), path=st.text(min_size=1))
def test_no_glob_is_too_strange(pattern, path):
    """
    Any pattern matches or does not, and nothing raises.
    """
    spec = HandlerSpec("any", lambda file: None, (pattern.casefold(),))

    assert spec.wants(a_file(path)) in {True, False}


def test_bare_decorator_wants_every_file():
    """
    Without parentheses, and with empty ones, the decorator means every file, and the function stays as it is.
    """

    def mine(file):
        return 1

    assert mine is handler(mine)
    assert mine is handler()(mine)
    assert [("*",), ("*",)] == [spec.patterns for spec in declared_handlers()]
    assert {f"{__name__}.{mine.__qualname__}"} == {spec.name for spec in declared_handlers()}


@pytest.mark.parametrize("arguments", [(1,), ("",), ("pdf", None), (("pdf", "word"),)])
def test_pattern_has_to_be_text(arguments):
    """
    A pattern that is no text is a mistake, told when it is made.
    """
    with pytest.raises(TypeError, match="patterns"):
        handler(*arguments)


def test_every_file_type_can_be_a_pattern():
    """
    The types that a handler may name are those that files are told apart by.
    """
    assert set(FileType.__args__) == FILE_TYPES
    assert all(patterns_of(name).wants(a_file("no.match", name)) for name in FILE_TYPES)


def test_file_and_skip_cannot_be_changed():
    """
    What a handler gets and gives is fixed: nobody changes it on the way.
    """
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_file().doc_id = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Skip("JUNK").reason_code = "other"

    assert Skip("JUNK", None) == Skip("JUNK")


def test_author_imports_everything_from_one_place():
    """
    What a handler author needs comes from `inbox`, and nothing else does.
    """
    assert {
        "File",
        "LLMError",
        "ParseError",
        "PermanentError",
        "RateLimitError",
        "RetryableError",
        "Skip",
        "TimeoutError",
        "WorkerError",
        "handler",
    } == set(inbox.__all__)
    assert all(hasattr(inbox, name) for name in inbox.__all__)
