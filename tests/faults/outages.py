"""A service whose database a test takes away: what its probes and its log say of it, and what it did in the end."""

import json
import time
from contextlib import closing
from http.client import HTTPConnection

import psycopg2
from databases import connected
from processes import wait_for
from sqlalchemy import make_url

from inbox.database.models import FileExtraction, Lease, ProcessingJob


def ask(port: int) -> dict | None:
    """Return what the readiness probe answers, or None while nobody does."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("GET", "/readyz")
            return json.loads(connection.getresponse().read())
        except OSError:
            return None


def is_ready(port: int) -> bool:
    told = ask(port)
    return told is not None and told["status"] == "ok"


def execute(url: str, statement: str) -> None:
    """Run a statement as the tests' superuser, past the proxy."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg2.connect(plain, options="-c default_transaction_read_only=off")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def wait_until_ready(port: int) -> float:
    """Return after how many seconds the service was ready."""
    began = time.monotonic()
    wait_for(lambda: is_ready(port), "readiness")
    return time.monotonic() - began


def troubles(service) -> list[tuple[str, str]]:
    """Return the lines about trouble, each as event and who waits."""
    return [
        (line["event"], line["leg"]) for line in service.lines() if line.get("event") in {"TroubleBegan", "TroubleOver"}
    ]


def audit(url: str, drops: dict[str, int]) -> None:
    """Hold the rows against what was dropped: so many files each, every one a success of its first attempt."""
    with connected(url) as sessions, sessions.reading() as session:
        jobs = session.query(ProcessingJob).all()
        rows = session.query(FileExtraction).all()
        leases = session.query(Lease).count()
    found = {job.drop_name: job.total_files for job in jobs}
    assert drops == found
    assert {"completed"} == {job.status for job in jobs}
    assert sum(drops.values()) == len(rows)
    assert {("success", 0)} == {(row.status, row.retry_count) for row in rows}
    assert 0 == leases
