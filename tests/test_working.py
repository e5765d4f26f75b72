"""A worker process as it is put together: what it cannot have is said in one line, not by a traceback."""

import pytest

from inbox.app.working import open_slots
from inbox.core.errors import StorageError


def test_slots_of_a_volume_that_is_gone(tmp_path):
    """
    A worker that starts while the volume does not give its slots ends for trouble of the storage, and is no surprise.
    """
    with pytest.raises(StorageError, match="No such file or directory"):
        open_slots(tmp_path / "gone" / "a.slots")
