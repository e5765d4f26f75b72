"""What the documents show is what happens: one run over real drops, held against the pages line by line."""

import json
import re

import pytest
from processes import ROOT, Storage
from zips import Member, archive

from inbox.archives import completeness
from inbox.archives.completeness import Completeness
from inbox.core.errors import ErrorType
from inbox.pipeline.settling import BEING_WRITTEN, UNREADABLE

SAMPLE = ROOT / "examples" / "sample.zip"
WITH_ERRORS = ROOT / "examples" / "sample-with-errors.zip"


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A volume after a run over every kind of drop, the good sample dropped twice."""
    storage = Storage(tmp_path_factory.mktemp("shown") / "shared", LOG_FORMAT="text")
    for path in (SAMPLE, WITH_ERRORS):
        storage.drop(path.name, path.read_bytes())
    storage.drop("bad.zip", archive(["../evil.txt"]))
    storage.drop("note.txt", b"hello")
    storage.drop("legacy.zip", archive([Member(name.encode("cp932")) for name in ("資料/A見積書", "資料/a見積書")]))
    storage.run("run", "--once")
    storage.drop("again.zip", SAMPLE.read_bytes())
    storage.run("run", "--once")
    return storage


def page(name):
    return (ROOT / name).read_text("utf-8")


def block(text, after, language):
    """Return the first code block of this language after a phrase."""
    return re.search(rf"^```{language}\n(.*?)^```$", text.partition(after)[2], re.MULTILINE | re.DOTALL)[1]


def pattern(shown, anything=".*"):
    """Return a pattern for what is shown: anything may stand where three dots do, times and durations differ."""
    text = re.escape(shown)
    text = re.sub(r"\d{4}\\-\d\d\\-\d\d\\ \d\d:\d\d:\d\d\\\.\d{3}", r"\\S+ \\S+", text)
    text = re.sub(r"(seconds|ms)=[\d.\\]+", r"\1=\\S+", text)
    return text.replace("…", anything)


def fields(text, head):
    """Return the names in the first column of the table with this head."""
    table = text.partition(f"| {head} | meaning |")[2].partition("\n\n")[0]
    return {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition(" | ")[0])}


def codes(text):
    return dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", text, re.MULTILINE))


def test_readme_shows_the_log_as_it_is(storage):
    """
    Each log line in the README is written when the sample is dropped.
    """
    shown = block(page("README.md"), "## The first drop", "console").splitlines()[2:]
    log = (storage.base / "logs" / "worker.log").read_text("utf-8")

    assert len(shown) > 3
    assert [] == [line for line in shown if not re.search(f"^{pattern(line)}$", log, re.MULTILINE)]


def test_readme_shows_the_receipt_as_it_is(storage):
    """
    The receipt in the README is that of the sample, shortened only where three dots say so.
    """
    shown = block(page("README.md"), "## The first drop", "text")
    receipt = next((storage.base / "receipts").glob("sample.zip.*.json"))

    assert receipt.name in page("README.md")
    assert re.fullmatch(pattern(shown, ".*?"), receipt.read_text("utf-8"), re.DOTALL)


def test_every_field_of_a_receipt_is_documented(storage):
    """
    The fields of receipts and of their entries are explained, and no other.
    """
    receipts = storage.receipts().values()
    entries = [entry for receipt in receipts for entry in receipt["entries"]]

    assert {"completed", "partial", "quarantined", "incomplete", "duplicate"} == {one["state"] for one in receipts}
    assert {name for one in receipts for name in one} == fields(page("docs/receipts.md"), "field")
    assert {name for one in entries for name in one} == fields(page("docs/receipts.md"), "field of an entry")
    assert {name for one in entries for name in one.get("name_origin", ())} == fields(
        page("docs/receipts.md"), "field of `name_origin`"
    )


def test_receipts_page_shows_a_receipt_as_it_is(storage):
    """
    The receipt on the page has the fields, in order, and the facts of the sample with errors.
    """
    shown = json.loads(block(page("docs/receipts.md"), "# Receipts", "json"))
    real = storage.receipt(WITH_ERRORS.name)
    differing = {"run_id", "entries", *(name for name in real if name.endswith("_at"))}

    assert list(real) == list(shown)
    assert {name: real[name] for name in real if name not in differing} == {
        name: shown[name] for name in shown if name not in differing
    }


def test_reason_file_is_shown_as_it_is(storage):
    """
    The reason beside a refused archive has the fields that the page shows, with its code.
    """
    shown = json.loads(block(page("docs/receipts.md"), "## Quarantine", "json"))
    real = json.loads((storage.base / "quarantine" / "bad.zip.reason.json").read_text("utf-8"))

    assert list(real) == list(shown)
    assert re.fullmatch(pattern(shown["reason"]), real["reason"])
    assert shown["reason_code"] == real["reason_code"]


def test_reasons_of_waiting_drops_are_documented():
    """
    Each code of a drop that is not taken is listed with its reason.
    """
    verdicts = [one for one in vars(completeness).values() if isinstance(one, Completeness) and not one.complete]
    told = codes(page("docs/receipts.md").partition("## Reason codes")[2].partition("**Of a refused")[0])

    assert {one.reason_code for one in verdicts} | {BEING_WRITTEN, UNREADABLE} == told.keys()
    assert {one.reason_code: one.reason for one in verdicts}.items() <= told.items()


def test_reasons_in_receipts_are_documented(storage):
    """
    Whatever reason a receipt gives for a drop or a member stands in one of the tables of codes.
    """
    receipts = storage.receipts().values()
    given = {one.get("reason_code") for receipt in receipts for one in (receipt, *receipt["entries"])} - {None}
    told = codes(page("docs/receipts.md")).keys() | codes(page("docs/security.md")).keys()

    assert {"JUNK", "PARSE_ERROR", "FILES_FAILED", "DUPLICATE", "UNSAFE_PATH", "NOT_AN_ARCHIVE"} == given
    assert given <= told | set(ErrorType)
