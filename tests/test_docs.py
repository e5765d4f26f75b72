"""The documents say what is: every setting, command, event, code and state in them is the program's own."""

import logging
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.main import get_command

from inbox import events
from inbox.archives import REFUSALS, SKIPS
from inbox.cli.commands import app
from inbox.config import Config
from inbox.database.models import Base
from inbox.handlers import base
from inbox.lifecycle import BATCH_EXITS, FILE_EXITS
from inbox.service import narrating

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "deploy" / "README.md"]


def read(name):
    return (ROOT / name).read_text("utf-8")


def printed(*options):
    command = [sys.executable, str(DOCS / "settings.py"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def commands():
    """Return every command by what is typed, such as `db upgrade`."""
    found = {}
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {one}": part for one, part in inner.items()} if inner else {name: command}
    return found


def options(command):
    return {option for parameter in command.params for option in parameter.opts if option.startswith("-")}


def blocks(page, *languages):
    """Return the code blocks of a page in these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def rows(text):
    """Return the cells of all table rows, heads included."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")
    ]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_setting_is_documented():
    """
    The table of settings is the one that the settings themselves print.
    """
    assert printed() in read("docs/configuration.md")


def test_example_environment_is_that_of_the_defaults():
    """
    `.env.example` names every setting with its default, and without its signs it is a valid `.env`.
    """
    text = read(".env.example")
    given = dict(line.removeprefix("#").split("=", 1) for line in text.splitlines() if re.match(r"#[A-Z_]+=", line))

    assert printed("--env") == text
    assert {name.upper() for name in Config.model_fields} == given.keys()
    values = {name.lower(): value for name, value in given.items() if value}
    assert Config(_env_file=None, **values).redacted() == Config(_env_file=None).redacted()


def test_every_command_is_documented():
    """
    Each command stands in the operator's table, and no other.
    """
    table = re.findall(r"^\| `inbox ([a-z]+(?: [a-z]+)?)", read("docs/operations.md"), re.MULTILINE)

    assert set(commands()) == set(table)


def test_every_option_is_documented():
    """
    Each option of each command stands in the operator's table beside that command, and no other.
    """
    table = read("docs/operations.md").partition("| option | of | does |")[2].partition("\n\n")[0]
    told = {
        (option.split()[0], command)
        for first, of, *_ in rows(table)
        for option in words(first)
        for command in words(of)
    }

    assert {(option, name) for name, command in commands().items() for option in options(command)} == told


def test_every_event_is_documented():
    """
    Each event that can stand in the log is explained, and no other.
    """
    kinds = {
        kind.__name__ for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)
    }
    kinds -= {"Event", "AttemptEvent", "Folded"}  # their bases
    table = read("docs/operations.md").partition("| event |")[2].partition("\n\n")[0]

    first_column = "".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE))
    assert kinds == set(re.findall(r"`([A-Z][A-Za-z]+)`", first_column))


def test_every_event_reads_as_documented():
    """
    Level, wording and fields of each event are those that are promised to programs and people.
    """
    lines = []
    for kind, (level, wording) in narrating._WORDING.items():
        lines += [f"{kind.__name__} {logging.getLevelName(level)}: {wording}\n"]
        lines += [f"    {' '.join(field.name for field in fields(kind))}\n"]

    assert "".join(lines) in blocks(DOCS / "operations.md", "text")


@pytest.mark.parametrize("table", Base.metadata.tables.values(), ids=lambda table: table.name)
def test_every_column_is_documented(table):
    """
    Each table of the database has a section that explains its columns, and no other.
    """
    section = read("docs/architecture.md").partition(f"### `{table.name}`")[2].partition("\n#")[0]
    told = [name for first, *_ in rows(section)[1:] for name in words(first)]

    assert sorted(table.columns.keys()) == sorted(told)


def bounds(text):
    """Return the values at the edge of `1 to 9`, `1 or more` or `more than 0`, and values beyond it."""
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if text.startswith("more than"):
        return [numbers[0] + 0.5], [numbers[0]]
    return numbers, [numbers[0] - 1, *(number + 1 for number in numbers[1:])]


def test_allowed_values_are_those_of_the_settings():
    """
    Every setting with a bound is listed, takes the values at it, and refuses those beyond.
    """
    table = read("docs/configuration.md").partition("| setting | allowed |")[2].partition("\n\n")[0]
    told = {name: allowed for first, allowed in rows(table) for name in words(first)}
    numeric = {
        name.upper()
        for name, field in Config.model_fields.items()
        if re.search(r"\b(int|float)\b", str(field.annotation))
    }
    listed = {name: bounds(allowed) for name, allowed in told.items() if re.search(r"^(more than )?\d", allowed)}

    assert numeric == listed.keys()
    for name, (taken, refused) in listed.items():
        for value in taken:
            Config(_env_file=None, **{name.lower(): value})
        for value in refused:
            with pytest.raises(ValidationError, match=name.lower()):
                Config(_env_file=None, **{name.lower(): value})


def test_every_reason_is_documented():
    """
    Each code of a refused archive or a skipped member is listed with its sentence.
    """
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*) \|$", read("docs/security.md"), re.MULTILINE))

    assert REFUSALS | SKIPS == rows


def decisions():
    """Every row of the tables of decisions: codes, settings and the proof, which is samples and tests by file."""
    for line in read("docs/security.md").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and "`test_" in cells[4]:
            proofs = re.findall(r"`(test_\w+\.py)`: ([^`]+?)\.?(?= `|$)", cells[4])
            yield (
                words(cells[2]),
                words(cells[3]),
                [(file, item) for file, items in proofs for item in items.split("; ")],
            )


def test_every_decision_names_its_code_its_setting_and_its_proof():
    """
    Each code belongs to a decision, each setting exists, and each sample or test that proves one is there.
    """
    rows = list(decisions())
    sources = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    proofs = [proof for _, _, proofs in rows for proof in proofs]

    assert len(rows) > 40
    assert REFUSALS.keys() | SKIPS.keys() <= {code for codes, _, _ in rows for code in codes}
    assert {setting for _, settings, _ in rows for setting in settings} <= {
        name.upper() for name in Config.model_fields
    }
    assert [] == [
        (file, item)
        for file, item in proofs
        if f"def {item}(" not in sources.get(file, "") and f'"{item}"' not in sources.get(file, "")
    ]
    assert all(proofs for _, _, proofs in rows)


@pytest.mark.parametrize(("head", "exits"), [("batch", BATCH_EXITS), ("file", FILE_EXITS)])
def test_every_transition_is_documented(head, exits):
    """
    The tables of states show every way from one to the next, and no other.
    """
    table = read("docs/architecture.md").partition(f"| {head} | goes to |")[2].partition("\n\n")[0]
    shown = set()
    for row in table.splitlines()[2:]:
        before, after = (re.findall(r"`(\w+)`", cell) for cell in row.split("|")[1:3])
        shown |= {(one, other) for one in before for other in after}

    assert {(str(before), str(after)) for before, ways in exits.items() for after in ways} == shown


def test_layers_are_those_of_the_contract():
    """
    The drawing of the layers is the contract that the imports are checked against.
    """
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawing = re.findall(r"^(inbox\.\w+) ", read("docs/architecture.md"), re.MULTILINE)

    assert layers == drawing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent != ROOT / "deploy" else "deploy")
def test_links_lead_somewhere(page):
    """
    Every link to a file of the project leads to one.
    """
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")) if "://" not in link]

    assert [] == [link for link in links if not (page.parent / link).exists()]


def test_readme_names_what_there_is():
    """
    The commands and make targets of the README exist.
    """
    text = read("README.md")
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    known = {name.split()[0] for name in commands()}

    assert set(re.findall(r"\bmake ([a-z]+)", text)) <= targets
    assert set(re.findall(r"(?:`|bin/)inbox ([a-z]+)", text)) <= known


def calls(text):
    """Yield command and options of every call of inbox in a shell block or a code span."""
    for line in text.splitlines():
        for part in re.split(r"&&|;|\s\|\s", line.partition("#")[0]):
            arguments = part.split()
            at = next((at for at, word in enumerate(arguments) if word in {"inbox", ".venv/bin/inbox"}), None)
            if at is not None and at + 1 < len(arguments):
                yield arguments[at + 1 :]


def settings_given(text):
    return set(re.findall(r"(?<![$\w])([A-Z][A-Z_]{3,})=", text))


@pytest.mark.parametrize(
    "name", ["README.md", *(f"docs/{page}.md" for page in ("configuration", "handlers", "operations", "receipts"))]
)
def test_what_can_be_typed_exists(name):
    """
    Every command, option and variable in a code block or a code span is one of the program's.
    """
    page = ROOT / name
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    typed = [*blocks(page, "sh", "console"), *(" ".join(span.split()) for span in words(prose))]
    known = {setting.upper() for setting in Config.model_fields} | {"DATABASE_URL_FILE", "DATABASE_PASSWORD_FILE"}

    assert {name for text in typed for name in settings_given(text)} <= known
    called = [call for text in typed for call in calls(text)]
    assert called
    for call in called:
        command = commands().get(" ".join(call[:2])) or commands()[call[0]]
        assert {word for word in call if word.startswith("-")} <= options(command), call


@pytest.mark.parametrize("name", ["README.md", "docs/handlers.md"])
def test_handlers_in_the_documents_can_be_declared(name, monkeypatch):
    """
    The Python in the documents runs as it stands, and declares a handler.
    """
    monkeypatch.setattr(base, "_declared", [])
    examples = blocks(ROOT / name, "python")
    for example in examples:
        exec(compile(example, name, "exec"), {"__name__": "example"})

    assert len(examples) == len(base.declared_handlers()) > 0


def test_metadata_of_the_package_is_complete():
    """
    The version of the package has its entry in the list of changes, or is still to be released.
    """
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]

    assert f"[{version}]" in read("CHANGELOG.md") or "[Unreleased]" in read("CHANGELOG.md")
