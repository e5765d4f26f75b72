"""Which inbox this is."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def inbox_version() -> str:
    """Return the version of the installed package, or 0 when it is run from a checkout."""
    try:
        return version("inbox")
    except PackageNotFoundError:
        return "0"
