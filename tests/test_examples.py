"""The examples: what the sample archives hold, and that the code beside them does what it says."""

import importlib.util
import io
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest

from inbox import File, ParseError
from inbox.handlers import base
from inbox.handlers.http import http_handler
from inbox.handlers.registry import HandlerSettings, load_handlers

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLES = ("sample.zip", "sample-with-errors.zip")
MAX_SAMPLE_BYTES = 100_000


@pytest.fixture
def make_sample():
    return load(EXAMPLES / "make_sample.py")


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_sound_and_small(name):
    """
    A sample in the repository is a whole archive, and nobody minds cloning it.
    """
    path = EXAMPLES / name
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()

    assert broken is None
    assert path.stat().st_size < MAX_SAMPLE_BYTES


@pytest.mark.parametrize(
    ("name", "members"), [("sample.zip", "sample_members"), ("sample-with-errors.zip", "error_members")]
)
def test_samples_hold_what_their_maker_lists(make_sample, name, members):
    """
    The archives in the repository have the members, in order, that make_sample.py would put into them.
    """
    with zipfile.ZipFile(EXAMPLES / name) as archive:
        found = archive.namelist()

    assert list(getattr(make_sample, members)()) == found


def test_samples_come_out_the_same_every_time(make_sample):
    """
    No clock and no machine leaves a trace in a sample.
    """
    first = make_sample.pack(make_sample.sample_members())
    second = make_sample.pack(make_sample.sample_members())

    assert first == second


def test_the_sample_has_one_of_each(make_sample):
    """
    A PDF, a Word, an Excel with two sheets, UTF-8 and Latin-1 text, a CSV, and a piece of junk.
    """
    members = make_sample.sample_members()
    workbook = openpyxl.load_workbook(io.BytesIO(members["reports/2024/figures.xlsx"]))
    with pytest.raises(UnicodeDecodeError):
        members["letters/old-letter.txt"].decode("utf-8")

    assert members["reports/2024/annual-report.pdf"].startswith(b"%PDF-")
    assert zipfile.ZipFile(io.BytesIO(members["letters/offer.docx"])).testzip() is None
    assert ["Sales", "Costs"] == workbook.sheetnames
    assert 51 == members["data/orders.csv"].count(b"\r\n")
    assert ["__MACOSX/._read-me.txt"] == [name for name in members if name.startswith("__MACOSX/")]


def test_the_handler_counts_words(tmp_path):
    """
    The example handler returns words and lines of a text.
    """
    module = load(EXAMPLES / "handlers" / "word_count.py")

    assert {"words": 3, "lines": 2, "attempt": 1} == module.count_words(text_file(tmp_path, b"one two\nthree\n"))


def test_the_handler_is_found_by_its_name(tmp_path, monkeypatch):
    """
    With its folder on the path, as it says itself, the example handler is loaded and gets texts and CSV files only.
    """
    monkeypatch.setattr(base, "_declared", [])
    monkeypatch.syspath_prepend(EXAMPLES / "handlers")
    registry = load_handlers(HandlerSettings(modules=("word_count",)))
    del sys.modules["word_count"]
    file = text_file(tmp_path, b"one two\n")

    assert {"words": 2, "lines": 1, "attempt": 1} == registry.call(file)
    assert registry.choose(replace(file, name="a.csv", file_type="unknown")) is not None
    assert registry.choose(replace(file, name="a.pdf", member_path="a.pdf", file_type="pdf")) is None


def test_the_handler_refuses_what_is_not_text(tmp_path):
    """
    The example handler calls broken text a parse error, which no retry can mend.
    """
    module = load(EXAMPLES / "handlers" / "word_count.py")

    with pytest.raises(ParseError, match="not UTF-8"):
        module.count_words(text_file(tmp_path, b"\xff\xfe\xfa"))


def test_the_application_answers_with_what_it_found(tmp_path, monkeypatch):
    """
    The example application finds the file that the HTTP handler announces, and its answer is the result.
    """
    module = load(EXAMPLES / "http_app.py")
    monkeypatch.setattr(module, "STORAGE", tmp_path)
    with module.ThreadingHTTPServer(("127.0.0.1", 0), module.Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        spec = http_handler(f"http://127.0.0.1:{server.server_port}/files", 30.0, tmp_path)
        answer = spec.function(text_file(tmp_path, b"one\ntwo\n"))
        server.shutdown()

    assert {"bytes": 8, "lines": 2} == answer


@pytest.mark.slow
def test_the_demo_passes():
    """
    What `make demo` shows is true.
    """
    done = subprocess.run([sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr


def text_file(folder, content):
    path = folder / "a.txt"
    path.write_bytes(content)
    return File(path, "a.txt", "a.txt", "text", len(content), "0" * 64, "d" * 32, "b" * 64, "run", 1)


def load(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
