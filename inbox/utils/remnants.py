"""Remnants: folders that were published by attempts which died before they had rows."""

import shutil
from collections.abc import Callable

from inbox.core.errors import StorageError
from inbox.utils.filesystem import sync_directory
from inbox.utils.renaming import id_of, replace_if_it_is
from inbox.utils.volume import Volume


def unpublish(volume: Volume, batch_id: str, token: str, *, is_idle: Callable[[], bool]) -> bool:
    """
    Remove what attempts that died before they had rows left published of a batch that will not get any.

    `token` tells our traces in `.staging/` from others'; `is_idle` says whether nobody else works on the batch. False
    when somebody does, whose folder stays, as it also does when it was published after that question. Raises
    StorageError.
    """
    published = volume.published(batch_id)
    remnant = id_of(published)
    if remnant is None:
        return True
    empty = volume.staging / f"{batch_id[:32]}.{token}"
    attic = empty.with_name(f"{empty.name}.old")
    try:
        empty.mkdir(exist_ok=True)
        if not is_idle() or not replace_if_it_is(published, remnant, empty, attic):
            return False
        published.rmdir()
        sync_directory(published.parent)
    except OSError as error:
        raise StorageError(f"a remnant cannot be removed: {error.strerror}", subject=str(published)) from error
    finally:
        for folder in (empty, attic):
            shutil.rmtree(folder, ignore_errors=True)
    return True
