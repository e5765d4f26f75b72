"""URLs in the settings: what is one, and what of it may be shown."""

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

MASK: Final = "***"
POSTGRESQL_DRIVER: Final = "postgresql+psycopg2"
_SHOWN_PARAMETERS: Final = frozenset({"application_name", "connect_timeout", "host", "port", "sslmode", "sslrootcert"})


def build_database_url(text: str) -> URL:
    """
    Return the URL with the driver that is installed: plain `postgresql://` and `postgres://` both mean psycopg2.

    Raises ValueError for what is no database URL, or names a database inbox does not speak. Never repeats the text,
    since it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(
            "DATABASE_URL is not a URL; write postgresql://user:password@host:5432/name or sqlite:////path/inbox.db"
        ) from None
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername=POSTGRESQL_DRIVER)
    if url.drivername in {POSTGRESQL_DRIVER, "sqlite", "sqlite+pysqlite"}:
        return url
    raise ValueError(f"DATABASE_URL: inbox speaks postgresql and sqlite, not {url.drivername}")


def str_url(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def redact_url(text: str) -> str:
    """
    Return a URL to show: passwords masked, and in a query every value that is not known to be harmless.

    Of an HTTP URL the whole query and whoever asks are masked, since either may be a token. Anything unreadable is
    masked whole.
    """
    http = text.lower().startswith(("http:", "https:"))
    try:
        return _redact_http_url(text) if http else _redact_database_url(text)
    except (ArgumentError, ValueError):
        return MASK


def _redact_http_url(text: str) -> str:
    parts = urlsplit(text)
    _, at, server = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{MASK}@{server}" if at else server, parts.path, parts.query and MASK, ""))


def _redact_database_url(text: str) -> str:
    url = make_url(text)
    query = "&".join(f"{name}={value if name in _SHOWN_PARAMETERS else MASK}" for name, value in url.query.items())
    shown = url.set(query={}).render_as_string(hide_password=True)
    return f"{shown}?{query}" if query else shown


def names_http_server(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
