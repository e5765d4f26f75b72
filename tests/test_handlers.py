"""Handlers: how they are declared, which files they get, and how a mistake in one is explained."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import inbox
from inbox.core.errors import ConfigurationError
from inbox.handlers import base
from inbox.handlers.base import File, HandlerSpec, Skip, declared_handlers, handler
from inbox.handlers.registry import NO_HANDLER, HandlerSettings, Registry, load_handlers

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_declarations(monkeypatch):
    """What a test declares is gone afterwards."""
    monkeypatch.setattr(base, "_declared", [])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of handlers into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written = []

    def write(name, text):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(name.split(".")[0])
        return name

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] in written]:
        del sys.modules[name]


def a_file(member_path="docs/a.txt", file_type="text", path=Path("/x")):
    name = member_path.rpartition("/")[2]
    return File(path, name, member_path, file_type, 1, "0" * 64, "d1", "b1", "r1", 1)


def patterns_of(*patterns):
    handler(*patterns)(lambda file: None)
    return declared_handlers()[-1]


@pytest.mark.parametrize(
    ("patterns", "file", "wanted"),
    [
        ((), a_file(), True),
        (("pdf",), a_file("a.pdf", "pdf"), True),
        (("pdf",), a_file("a.pdf", "unknown"), False),
        (("*.csv",), a_file("deep/A.CSV"), True),
        (("*.CSV",), a_file("a.csv"), True),
        (("reports/*.csv",), a_file("reports/a.csv"), True),
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


def test_bare_decorator_wants_every_file():
    """
    Without parentheses the decorator means every file, and the function stays callable.
    """

    @handler
    def mine(file):
        return 1

    assert declared_handlers()[-1].wants(a_file())
    assert 1 == mine(None)
    assert declared_handlers()[-1].name.endswith("mine")


@pytest.mark.parametrize("arguments", [(1,), ("",), ("pdf", None)])
def test_pattern_has_to_be_text(arguments):
    """
    A pattern that is no text is a mistake, told when it is made.
    """
    with pytest.raises(TypeError, match="patterns"):
        handler(*arguments)


def test_first_that_wants_the_file_gets_it():
    """
    Handlers are asked in order, and a file that nobody wants is skipped.
    """
    registry = Registry((HandlerSpec("a", lambda _: "a", ("pdf",)), HandlerSpec("b", lambda _: "b", ("text", "pdf"))))

    assert "a" == registry.call(a_file("a.pdf", "pdf"))
    assert "b" == registry.call(a_file())
    assert Skip(NO_HANDLER) == registry.call(a_file("a.xlsx", "excel"))


def test_coroutine_functions_are_awaited():
    """
    A handler may be a coroutine function.
    """

    async def slow(file):
        await asyncio.sleep(0)
        return file.name

    assert "a.txt" == Registry((HandlerSpec("slow", slow),)).call(a_file())


def test_module_brings_its_handlers(module):
    """
    A module in the working directory is imported, and its handlers come in the order of their declaration.
    """
    name = module(
        "mine.invoices",
        "from inbox import handler\n@handler('pdf')\ndef one(file): return 1\n@handler('*')\ndef two(file): return 2\n",
    )
    registry = load_handlers(HandlerSettings(modules=(name,)))

    assert ["mine.invoices.one", "mine.invoices.two"] == [spec.name for spec in registry.specs]
    assert 2 == registry.call(a_file())
    assert registry == load_handlers(HandlerSettings(modules=(name,)))


def test_handlers_of_imported_parts_count(module):
    """
    A module may keep its handlers in modules of its own.
    """
    module("parts.deep", "from inbox import handler\n@handler\ndef found(file): return 'found'\n")
    name = module("whole", "import parts.deep\n")

    assert "found" == load_handlers(HandlerSettings(modules=(name,))).call(a_file())


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("missing_module", None, "put it into"),
        ("needs_more", "import a_library_nobody_has", "install a_library_nobody_has"),
        ("broken", "1/0", "mend the module"),
        ("leaves", "raise SystemExit(3)", "mend the module"),
        ("empty", "x = 1", "put @handler"),
        ("handlers/invoices.py", None, "module names"),
    ],
)
def test_mistake_in_a_module_is_explained(module, name, text, hint):
    """
    A module that cannot be imported, or declares nothing, says what to do about it.
    """
    if text is not None:
        module(name, text)

    with pytest.raises(ConfigurationError) as refused:
        load_handlers(HandlerSettings(modules=(name,)))

    assert hint in refused.value.hint
    assert name in refused.value.message


def test_default_is_documents_and_url_comes_last(module):
    """
    Without any setting documents are read; modules come before the URL.
    """
    name = module("pdfs", "from inbox import handler\n@handler('pdf')\ndef pdfs(file): return 1\n")

    assert ["documents"] == [spec.name for spec in load_handlers(HandlerSettings()).specs]
    both = load_handlers(HandlerSettings(modules=(name,), handler_url="http://127.0.0.1:9/files"))
    assert ["pdfs.pdfs", "http"] == [spec.name for spec in both.specs]
    assert "9/files" not in repr(HandlerSettings(handler_url="http://127.0.0.1:9/files"))


def test_second_process_finds_the_same_handlers(module):
    """
    A worker process that imports the module anew has the same handlers.
    """
    name = module("again", "from inbox import handler\n@handler\ndef again(file): return 1\n")
    script = (
        "from inbox.handlers.registry import *; "
        f"print([spec.name for spec in load_handlers(HandlerSettings(modules=('{name}',))).specs])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "['again.again']" == done.stdout.strip()


def test_author_imports_everything_from_one_place():
    """
    What a handler author needs comes from `inbox`, and nothing else does.
    """
    assert {"File", "Skip", "handler", "RetryableError", "PermanentError"} < set(inbox.__all__)
    assert all(hasattr(inbox, name) for name in inbox.__all__)
