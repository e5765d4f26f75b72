"""A handler that writes what it was given into a folder on the volume, as careful ones do: beside, then renamed."""

import os
import time
from pathlib import Path

from inbox import File, handler


@handler
def keep(file: File) -> dict[str, object]:
    """Note the call, then write the content four times over."""
    with Path(os.environ["TEST_CALLS"]).open("a") as calls:
        calls.write(f"{file.doc_id} {file.member_path} {file.attempt}\n")
    time.sleep(0.05)  # so that a volume can fill up under it
    content = file.path.read_bytes() * 4
    target = file.path.parents[len(file.member_path.split("/")) + 1] / "outputs" / file.doc_id
    beside = target.with_suffix(".part")
    try:
        beside.write_bytes(content)
        beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)
    return {"bytes": len(content), "text": "x" * 2000}
