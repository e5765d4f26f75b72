"""A handler that does nothing, so that what is measured is inbox."""

from inbox import File, handler


@handler
def noop(_file: File) -> None:
    return None
