"""
Prints the table of settings that docs/configuration.md holds, and with `--env` the file `.env.example`.

    python docs/settings.py > table.md
    python docs/settings.py --env > .env.example
"""

import sys
import textwrap
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from inbox.config import Config

SHOWN_DEFAULTS: Final = {
    "database_url": "embedded SQLite, `.inbox/inbox.db` below the base",
    "worker_processes": "cores",
    "settle_seconds": "2 local, 5 network",
    "scan_interval_seconds": "15 local, 5 network",
    "log_file_path": "`logs/worker.log` below the base",
}
_WORDS: Final = {int: "integer", float: "number", str: "text", bool: "true, false", Path: "path"}
_HEAD: Final = """\
# Every setting of inbox, with its default. Copy to `.env` and take the # away from what you change.
# What each means in full: docs/configuration.md. `inbox config` prints what is in force.
"""


def rows() -> list[tuple[str, str, str, str]]:
    """Return for each setting its variable, kind of value, default and meaning."""
    return [
        (name.upper(), _kind(field.annotation), _default(name, field), str(field.description).rstrip("."))
        for name, field in Config.model_fields.items()
    ]


def table() -> str:
    lines = ["| variable | value | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {default} | {meaning} |" for name, kind, default, meaning in rows()]
    return "\n".join(lines) + "\n"


def env_file() -> str:
    parts = [_HEAD]
    for name, field in Config.model_fields.items():
        comment = textwrap.fill(str(field.description), 110, initial_indent="# ", subsequent_indent="# ")
        parts.append(f"{comment}\n#{name.upper()}={_plain_default(field)}\n")
    return "\n".join(parts)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if get_origin(annotation) in {UnionType, Union}:
        return _kind(next(part for part in get_args(annotation) if part is not type(None)))
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    return "names, by comma" if get_origin(annotation) is tuple else _WORDS[annotation]


def _default(name: str, field: FieldInfo) -> str:
    if name in SHOWN_DEFAULTS:
        return SHOWN_DEFAULTS[name]
    plain = _plain_default(field)
    return f"`{plain}`" if plain else ""


def _plain_default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None or value is None or value in {"", ()}:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write(env_file() if "--env" in sys.argv[1:] else table())
