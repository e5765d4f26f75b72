"""A database of either state of health: PostgreSQL behind a proxy that the test switches."""

import pytest
from databases import connected
from pipeline_parts import Clock, House
from proxy import proxied

from inbox.utils.volume import Volume


@pytest.fixture
def postgresql_url(postgres_server, postgres_template):
    """A fresh PostgreSQL database with the newest schema."""
    url = postgres_server.create_database(template=postgres_template)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def behind_proxy(postgresql_url):
    """A proxy before a fresh PostgreSQL database, and the URL that leads through it."""
    with proxied(postgresql_url) as (proxy, url):
        yield proxy, url


@pytest.fixture
def proxy(behind_proxy):
    return behind_proxy[0]


@pytest.fixture
def far_house(behind_proxy, tmp_path):
    """All stages of one service whose database is behind the proxy, one second away at the most."""
    folder = tmp_path / "shared"
    folder.mkdir()
    with connected(behind_proxy[1], timeout=1.0) as sessions:
        yield House(sessions, Volume.at(folder), Clock())
