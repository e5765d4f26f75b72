"""The examples: what the sample archives hold, and that the code beside them does what it says."""

import importlib.util
import io
import json
import subprocess
import sys
import threading
import zipfile
from http.client import HTTPConnection
from pathlib import Path

import pytest

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

    assert found == list(getattr(make_sample, members)())


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
    import openpyxl

    members = make_sample.sample_members()
    workbook = openpyxl.load_workbook(io.BytesIO(members["reports/2024/figures.xlsx"]))
    with pytest.raises(UnicodeDecodeError):
        members["letters/old-letter.txt"].decode("utf-8")

    assert members["reports/2024/annual-report.pdf"].startswith(b"%PDF-")
    assert zipfile.ZipFile(io.BytesIO(members["letters/offer.docx"])).testzip() is None
    assert workbook.sheetnames == ["Sales", "Costs"]
    assert members["data/orders.csv"].count(b"\r\n") == 51
    assert [name for name in members if name.startswith("__MACOSX/")] == ["__MACOSX/._read-me.txt"]


def test_the_handler_counts_words(tmp_path):
    """
    The example handler returns words and lines of a text.
    """
    module = load(EXAMPLES / "handlers" / "word_count.py")

    assert module.count_words(text_file(tmp_path, b"one two\nthree\n")) == {"words": 3, "lines": 2, "attempt": 1}


def test_the_handler_refuses_what_is_not_text(tmp_path):
    """
    The example handler calls broken text a parse error, which no retry can mend.
    """
    from inbox import ParseError

    module = load(EXAMPLES / "handlers" / "word_count.py")

    with pytest.raises(ParseError, match="not UTF-8"):
        module.count_words(text_file(tmp_path, b"\xff\xfe\xfa"))


def test_the_application_answers_with_what_it_found(tmp_path, monkeypatch):
    """
    The example application reads the file by its path below the shared volume and answers in JSON.
    """
    module = load(EXAMPLES / "http_app.py")
    monkeypatch.setattr(module, "STORAGE", tmp_path)
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    with module.ThreadingHTTPServer(("127.0.0.1", 0), module.Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("POST", "/files", json.dumps({"file_path": "a.txt"}))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        server.shutdown()

    assert answer == {"bytes": 8, "lines": 2}


@pytest.mark.slow
def test_the_demo_passes():
    """
    What `make demo` shows is true.
    """
    done = subprocess.run([sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def text_file(folder, content):
    from inbox import File

    path = folder / "a.txt"
    path.write_bytes(content)
    return File(path, "a.txt", "a.txt", "text", len(content), "0" * 64, "d" * 32, "b" * 64, "run", 1)


def load(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
