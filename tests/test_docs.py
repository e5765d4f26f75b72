"""The documents say what is: every setting, command, event, code and state in them is the program's own."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from inbox import events
from inbox.archives import REFUSALS, SKIPS
from inbox.cli.commands import app
from inbox.config import Config
from inbox.lifecycle import BATCH_EXITS, FILE_EXITS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "deploy" / "README.md"]


def read(name):
    return (ROOT / name).read_text("utf-8")


def printed(*options):
    command = [sys.executable, str(DOCS / "settings.py"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def commands():
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        yield from (f"{name} {one}" for one in inner) if inner else (name,)


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


def test_every_event_is_documented():
    """
    Each event that can stand in the log is explained, and no other.
    """
    kinds = {
        kind.__name__ for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)
    }
    kinds -= {"Event", "AttemptEvent"}  # their bases
    table = read("docs/operations.md").partition("| event |")[2].partition("\n\n")[0]

    first_column = "".join(re.findall(r"^\|([^|]+)\|", table, re.MULTILINE))
    assert kinds == set(re.findall(r"`([A-Z][A-Za-z]+)`", first_column))


def test_every_reason_is_documented():
    """
    Each code of a refused archive or a skipped member is listed with its sentence.
    """
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*) \|$", read("docs/security.md"), re.MULTILINE))

    assert REFUSALS | SKIPS == rows


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


def test_metadata_of_the_package_is_complete():
    """
    The version of the package has its entry in the list of changes, or is still to be released.
    """
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]

    assert f"[{version}]" in read("CHANGELOG.md") or "[Unreleased]" in read("CHANGELOG.md")
