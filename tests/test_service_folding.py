"""The log of a service that works off many files: few lines, and still every file in them."""

from collections import Counter

import pytest
from processes import Storage, wait_for

pytestmark = pytest.mark.slow


def test_every_file_is_in_the_log_once_the_service_has_ended(tmp_path):
    """
    After SIGTERM lines in full and numbers add up to the files, each worker tells its own, and the log file has them.
    """
    shared = Storage(tmp_path / "shared", HANDLERS="handlers_for_processes", LOG_SAME_CAUSE=1)
    members = [f"ok-{number}.txt" for number in range(200)] + [f"broken-{number}.txt" for number in range(100)]
    with shared.service() as service:
        shared.drop("a.zip", members)
        shared.wait_for_receipt("a.zip")
        wait_for(lambda: service.events("BatchReported"), "the report")
        assert 0 == service.terminate()
    lines = Counter(line["event"] for line in service.lines() if "event" in line)
    folded = {name: service.events(name) for name in ("AttemptsSucceeded", "AttemptsFailed")}
    times = {name: sum(line["times"] for line in told) for name, told in folded.items()}
    logged = shared.run("logs", "--json", "-n", "10000").stdout

    assert 200 == lines["AttemptSucceeded"] + times["AttemptsSucceeded"]
    assert 100 == lines["AttemptFailed"] + times["AttemptsFailed"]
    assert lines["AttemptSucceeded"] <= 20
    assert lines["AttemptFailed"] <= 2
    assert {"worker 0", "worker 1"} >= {line["by"] for told in folded.values() for line in told}
    assert all(line["message"] in logged for told in folded.values() for line in told)
