"""The registry: where handlers come from, which one gets a file, and how a mistake in one is explained."""

import asyncio
import importlib
import multiprocessing
import sys
from pathlib import Path

import pytest

from inbox import PermanentError
from inbox.core.errors import ConfigurationError
from inbox.handlers import base
from inbox.handlers.base import File, HandlerSpec, Skip
from inbox.handlers.registry import NO_HANDLER, HandlerSettings, Registry, load_handlers

SPAWN = multiprocessing.get_context("spawn")

TEXT = File(Path("/x"), "a.txt", "docs/a.txt", "text", 1, "0" * 64, "d1", "b1", "r1", 1)
PDF = File(Path("/x"), "a.pdf", "docs/a.pdf", "pdf", 1, "0" * 64, "d1", "b1", "r1", 1)
EXCEL = File(Path("/x"), "a.xlsx", "docs/a.xlsx", "excel", 1, "0" * 64, "d1", "b1", "r1", 1)


@pytest.fixture(autouse=True)
def own_declarations(monkeypatch):
    """What a test declares is gone afterwards."""
    monkeypatch.setattr(base, "_declared", [])


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of handlers into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    written = set()

    def write(name, text):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.add(name.partition(".")[0])
        importlib.invalidate_caches()
        return name

    yield write
    forget(written)


def forget(packages):
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def declaring(*functions, pattern="*"):
    """Return the text of a module in which each function returns its own name."""
    bodies = (f"@handler('{pattern}')\ndef {name}(file):\n    return '{name}'\n" for name in functions)
    return "from inbox import handler\n" + "".join(bodies)


def loaded(*modules, **others):
    return load_handlers(HandlerSettings(modules=modules, **others))


def names(registry):
    return [spec.name for spec in registry.specs]


def test_first_that_wants_the_file_gets_it():
    """
    Handlers are asked in order, and a file that nobody wants is skipped.
    """
    registry = Registry((HandlerSpec("a", lambda _: "a", ("pdf",)), HandlerSpec("b", lambda _: "b", ("text", "pdf"))))

    assert "a" == registry.call(PDF)
    assert "b" == registry.call(TEXT)
    assert registry.choose(EXCEL) is None
    assert Skip(NO_HANDLER) == registry.call(EXCEL)


def test_coroutine_functions_are_awaited():
    """
    A handler may be a coroutine function; what it returns is the result, and what it raises comes out unchanged.
    """

    async def named(file):
        await asyncio.sleep(0)
        return file.name

    async def failing(file):
        await asyncio.sleep(0)
        raise PermanentError("no")

    assert "a.txt" == Registry((HandlerSpec("named", named),)).call(TEXT)
    with pytest.raises(PermanentError, match="no"):
        Registry((HandlerSpec("failing", failing),)).call(TEXT)


def test_module_brings_its_handlers(module):
    """
    A module in the working directory is imported, and its handlers come in the order of their declaration.
    """
    name = module("mine.invoices", declaring("second", "first"))

    registry = loaded(name)

    assert ["mine.invoices.second", "mine.invoices.first"] == names(registry)
    assert "second" == registry.call(TEXT)


def test_modules_are_asked_in_the_order_given(module):
    """
    The order of HANDLERS decides between two modules that want the same file, also when one imports the other.
    """
    module("one", declaring("one"))
    module("two", "import one\n" + declaring("two"))

    assert ["two.two", "one.one"] == names(loaded("two", "one"))
    assert ["one.one", "two.two"] == names(loaded("one", "two"))


def test_handlers_of_imported_parts_count_once(module):
    """
    A module may keep its handlers in modules of its own; named as well, they are still asked once.
    """
    module("parts.deep", declaring("found"))
    module("whole", "import parts.deep\n")

    assert ["parts.deep.found"] == names(loaded("whole"))
    assert ["parts.deep.found"] == names(loaded("whole", "parts.deep"))


def test_module_that_had_been_imported_before_has_its_handlers(module, tmp_path, monkeypatch):
    """
    Whoever imported a module first, its handlers and those of its parts are found, and no stranger's.
    """
    monkeypatch.syspath_prepend(tmp_path)
    module("early.__init__", declaring("stale"))
    importlib.import_module("early")
    forget({"early"})
    module("early.__init__", declaring("own") + "# another text, so that it is compiled anew\n")
    module("early.part", declaring("part"))
    module("earlybird", declaring("stranger"))
    importlib.import_module("early.part")
    importlib.import_module("earlybird")

    assert ["early.own", "early.part.part"] == names(loaded("early"))


def test_second_load_finds_the_same(module):
    """
    A process that loads the handlers again has the same ones, in the same order.
    """
    module("again", declaring("one", "two"))

    assert loaded("again") == loaded("again")


def tell_handlers(modules, answers):
    registry = load_handlers(HandlerSettings(modules=modules))
    answers.put((names(registry), registry.call(TEXT)))


def test_spawned_process_finds_the_same(module):
    """
    A worker process, which imports everything anew, has the same handlers.
    """
    module("workers", declaring("one", "two"))
    answers = SPAWN.SimpleQueue()
    process = SPAWN.Process(target=tell_handlers, args=(("workers",), answers))
    process.start()
    process.join(60)

    assert 0 == process.exitcode
    assert (names(loaded("workers")), "one") == answers.get()


def test_default_is_documents():
    """
    Without any setting documents are read, every file by the same handler, with the limits that are set.
    """
    registry = load_handlers(HandlerSettings(unreadable="skip", max_text_chars=5, max_read_bytes=10))
    reader = registry.choose(EXCEL).function

    assert ["documents"] == names(registry)
    assert ("skip", 5, 10) == (reader.unreadable, reader.max_text_chars, reader.max_read_bytes)


def test_url_comes_after_the_modules(module):
    """
    The application behind the URL gets what no module wants, and then nobody reads documents.
    """
    module("pdfs", declaring("pdfs", pattern="pdf"))

    registry = loaded("pdfs", handler_url="http://127.0.0.1:9/files")

    assert ["pdfs.pdfs", "http"] == names(registry)
    assert "http" == registry.choose(TEXT).name
    assert ["http"] == names(loaded(handler_url="http://127.0.0.1:9/files"))


def test_url_is_not_shown():
    """
    The settings, which may be logged, do not show a URL that may carry a password.
    """
    assert "hush" not in repr(HandlerSettings(handler_url="http://me:hush@127.0.0.1:9/files"))


@pytest.mark.parametrize(
    ("name", "text", "problem", "hint"),
    [
        ("missing_module", None, "cannot import", "put it into {here} or a folder on PYTHONPATH"),
        ("package.missing", None, "cannot import", "put it into {here} or a folder on PYTHONPATH"),
        ("needs_more", "import a_library_nobody_has", "cannot import", "install a_library_nobody_has"),
        ("broken", "1/0", "ZeroDivisionError", "python -c 'import broken'"),
        ("half", "def :", "SyntaxError", "python -c 'import half'"),
        ("leaves", "raise SystemExit(3)", "SystemExit", "python -c 'import leaves'"),
        ("wrong_pattern", "from inbox import handler\nhandler(1)", "patterns", "python -c 'import wrong_pattern'"),
        ("silent", "x = 1", "declares no handler", "put @handler"),
        ("handlers/invoices.py", None, "cannot import", "module names"),
        ("invoices.py", None, "cannot import", "module names"),
        ("my-handlers", None, "cannot import", "module names"),
        ("", None, "cannot import", "module names"),
        (".relative", None, "cannot import", "module names"),
    ],
)
def test_mistake_in_a_module_is_explained(module, tmp_path, name, text, problem, hint):
    """
    A module that cannot be imported, or declares nothing, is named with what is wrong and what to do about it.
    """
    if text is not None:
        module(name, text)

    with pytest.raises(ConfigurationError) as refused:
        loaded(name)

    assert f"HANDLERS: {name}" in refused.value.message.replace("cannot import ", "")
    assert problem in refused.value.message
    assert hint.format(here=tmp_path) in refused.value.hint


def test_mended_module_is_loaded(module):
    """
    A module that failed leaves nothing behind: once it is mended, its handlers are there, each once.
    """
    module("mended", declaring("first") + "1/0\n")
    with pytest.raises(ConfigurationError):
        loaded("mended")
    module("mended", declaring("first") + "# now it works\n")

    assert ["mended.first"] == names(loaded("mended"))
