"""Secrets that stand in files: read when the settings are, and named when they cannot be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAX_PASSWORDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a secret whose file could not be used, so that its field can say so next to the other problems."""

    problem: str


def read_secret(variable: str, path: str) -> str | Unreadable:
    """Return the content of the file without white space around it, or why there is none."""
    try:
        secret = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        return Unreadable(f"{variable}: cannot read {path}: {reason}; mount the secret there")
    return secret or Unreadable(f"{variable}: {path} is empty; put the secret there")


def read_passwords(path: Path) -> tuple[str, ...]:
    """Return the lines of the file that are not empty; a password may begin or end with a space. Raises ValueError."""
    variable = "ARCHIVE_PASSWORDS_FILE"
    try:
        text = path.expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ValueError(f"{variable}: cannot read {path}: {reason}; mount the secret there") from None
    passwords = tuple(dict.fromkeys(line for line in text.split("\n") if line))
    if not passwords:
        raise ValueError(f"{variable}: {path} is empty; put one password on each line")
    if len(passwords) > _MAX_PASSWORDS:
        raise ValueError(f"{variable}: {path} has more than {_MAX_PASSWORDS:,} passwords; each is tried on an archive")
    return passwords
