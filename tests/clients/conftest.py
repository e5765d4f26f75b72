"""A running service for the tests of one topic."""

import pytest
from delivering import DAMAGED_GRACE_SECONDS, QUIET_SECONDS, Witness
from processes import Storage


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    """The service on a volume of its own, with a short quiet time and the embedded database."""
    shared = Storage(
        tmp_path_factory.mktemp("clients") / "shared",
        HANDLERS="handlers_for_processes",
        SETTLE_SECONDS=QUIET_SECONDS,
        DAMAGED_GRACE_SECONDS=DAMAGED_GRACE_SECONDS,
        WORKER_PROCESSES=1,
    )
    with shared.service() as service:
        yield Witness(shared, service)
        assert 0 == service.terminate()


@pytest.fixture
def uploads(witness):
    return witness.uploads
