"""
Untrusted ZIP archives: is it whole, what would it make, and make just that.

Judge first, write afterwards: `check_complete` is the gate's question, `plan_extraction` reads and judges the whole
index, `extract_members` writes what the plan allows, `check_members` only decodes it. Nothing here knows a database or
a folder of the service.
"""

from inbox.archives.checking import check_members
from inbox.archives.codepages import require_code_page
from inbox.archives.completeness import UNWRITTEN, Completeness, check_complete
from inbox.archives.limits import Limits
from inbox.archives.passwords import Passwords
from inbox.archives.planning import Plan, plan_extraction
from inbox.archives.reasons import REFUSALS, SKIPS
from inbox.archives.terms import Terms
from inbox.archives.watchman import Watchman
from inbox.archives.writing import extract_members

__all__ = [
    "REFUSALS",
    "SKIPS",
    "UNWRITTEN",
    "Completeness",
    "Limits",
    "Passwords",
    "Plan",
    "Terms",
    "Watchman",
    "check_complete",
    "check_members",
    "extract_members",
    "plan_extraction",
    "require_code_page",
]
