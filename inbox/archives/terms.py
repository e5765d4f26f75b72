"""On what terms archives are read."""

from dataclasses import dataclass, field

from inbox.archives.codepages import DETECT
from inbox.archives.limits import Limits
from inbox.archives.passwords import Passwords


@dataclass(frozen=True, slots=True)
class Terms:
    """What an archive may cost, what may open it, and by which code page names are read that nobody marked."""

    limits: Limits = field(default_factory=Limits)
    passwords: Passwords = field(default_factory=Passwords)
    name_encoding: str = DETECT
    accept_outside: bool = False
    """Whether bytes that stand before or behind the archive are let be."""
