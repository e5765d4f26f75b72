"""
Starts the service in a temporary folder, drops `sample.zip` into it, twice, and checks what comes of it.

    python examples/demo.py           ends with 0 when everything is right, else with 1 and a line that says what is not
    python examples/demo.py --keep    leaves the folder for a look around
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

SAMPLE: Final = Path(__file__).with_name("sample.zip")
CHECKOUT: Final = Path(__file__).resolve().parent.parent
RECEIPT_NAME: Final = re.compile(re.escape(SAMPLE.name) + r"\.[0-9a-f]{12}\.json")
START_SECONDS: Final = 60
PROCESS_SECONDS: Final = 120
STOP_SECONDS: Final = 40
POLL_SECONDS: Final = 0.1

T = TypeVar("T")
Receipt = dict[str, Any]
console = Console(highlight=False)


class DemoError(Exception):
    """Something is not as promised; the message says what."""


class Service:
    """`inbox run` as a process of its own, with the embedded database, on a folder of its own."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.output = storage.parent / "output.log"
        self.port = free_port()
        # Nothing of this shell's settings: the demo shows what happens without any.
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= {
            "STORAGE_BASE_PATH": str(storage),
            "HTTP_PORT": str(self.port),
            "PYTHONPATH": str(CHECKOUT),
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inbox", "run"],
                cwd=storage.parent,  # no `.env` here
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def is_ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def ask(self, *arguments: str) -> object:
        """Return what `inbox … --json` says."""
        command = [sys.executable, "-m", "inbox", *arguments, "--json"]
        answer = subprocess.run(
            command, cwd=self.storage.parent, env=self.environment, capture_output=True, text=True, check=False
        )
        demand(answer.returncode == 0, f"inbox {' '.join(arguments)} ended with {answer.returncode}: {answer.stderr}")
        return json.loads(answer.stdout)

    def wait_for(self, what: str, look: Callable[[], T | None], seconds: float) -> T:
        """Return what `look` finds, as soon as it finds something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            demand(self.process.poll() is None, f"the service ended with {self.process.returncode}, waiting for {what}")
            if found := look():
                return found
            time.sleep(POLL_SECONDS)
        raise DemoError(f"no {what} within {seconds:.0f} s")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the service did not stop within {STOP_SECONDS} s of SIGTERM") from None


def demand(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise DemoError(otherwise)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(folder: Path) -> Iterator[Service]:
    storage = folder / "shared"
    storage.mkdir()
    service = Service(storage)
    try:
        service.wait_for("answer of 200 on /readyz", service.is_ready, START_SECONDS)
        yield service
    except DemoError:
        console.print(service.output.read_text(errors="replace")[-4000:], markup=False, style="dim", soft_wrap=True)
        raise
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()


def drop(storage: Path) -> None:
    """Copy under a temporary name, then rename: so nobody ever sees half of it."""
    arriving = storage / "uploads" / f".{SAMPLE.name}.part"
    shutil.copyfile(SAMPLE, arriving)
    arriving.rename(storage / "uploads" / SAMPLE.name)


def find_receipt(storage: Path, *, duplicate: bool = False) -> Receipt | None:
    for path in (storage / "receipts").glob("*.json"):
        receipt: Receipt = json.loads(path.read_text("utf-8"))
        if RECEIPT_NAME.fullmatch(path.name) and duplicate == (receipt["state"] == "duplicate"):
            return receipt
    return None


def wait_for_receipt(service: Service, members: int) -> Receipt:
    """Wait until the receipt is there; show meanwhile how many files have been unpacked."""
    extracted = service.storage / "extracted"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} files"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        shown = progress.add_task("settling", total=members)

        def look() -> Receipt | None:
            unpacked = sum(path.is_file() for path in extracted.glob("*/**/*") if ".staging" not in path.parts)
            progress.update(shown, completed=unpacked, description="processing" if unpacked else "settling")
            return find_receipt(service.storage)

        receipt = service.wait_for(f"receipt of {SAMPLE.name}", look, PROCESS_SECONDS)
        progress.update(shown, completed=receipt["files"], description="done")
    return receipt


def wait_until_moved(service: Service) -> None:
    gone = service.storage / "uploads" / SAMPLE.name
    service.wait_for(f"move of {SAMPLE.name} out of uploads/", lambda: not gone.exists(), PROCESS_SECONDS)


def check_receipt(receipt: Receipt, contents: dict[str, bytes]) -> None:
    demand(receipt["state"] == "completed", f"the receipt says {receipt['state']}, not completed")
    demand(
        receipt["members"] == len(contents) == receipt["files"] + receipt["skipped"],
        f"{len(contents)} members in the archive, but {receipt['members']} in the receipt, "
        f"of which {receipt['files']} files and {receipt['skipped']} skipped",
    )
    demand(receipt["succeeded"] == receipt["files"], f"only {receipt['succeeded']} of {receipt['files']} succeeded")
    entries = {entry["path"]: entry for entry in receipt["entries"]}
    demand(entries.keys() == contents.keys(), f"the entries are not the members: {entries.keys() ^ contents.keys()}")
    for path, entry in entries.items():
        demand(entry["state"] in {"success", "skipped"}, f"{path} is {entry['state']}")
        if entry["state"] == "success":
            expected = hashlib.sha256(contents[path]).hexdigest()
            demand(entry["sha256"] == expected, f"{path}: the receipt's sha256 is not that of its content")


def check_volume(storage: Path, receipt: Receipt, contents: dict[str, bytes]) -> None:
    folder = storage / "extracted" / receipt["batch_id"]
    for entry in receipt["entries"]:
        if entry["state"] == "success":
            path = folder / entry["path"]
            demand(path.is_file() and path.read_bytes() == contents[entry["path"]], f"{path} is not what was dropped")
    kept = storage / "processed" / SAMPLE.name
    demand(kept.is_file() and kept.read_bytes() == SAMPLE.read_bytes(), f"the archive is not in {kept.parent}")


def check_duplicate(first: Receipt, second: Receipt) -> None:
    demand(second["batch_id"] == first["batch_id"], "the same content became another batch")
    demand(second["entries"] == first["entries"], "something was done to the entries again")


def show_receipt(receipt: Receipt) -> None:
    table = Table("member", "state", "bytes", "sha256", title=f"receipt of {receipt['drop']}: {receipt['state']}")
    for entry in receipt["entries"]:
        digest = (entry.get("sha256") or "")[:12]
        table.add_row(entry["path"], entry["state"], str(entry["size_bytes"]), digest or entry.get("reason_code"))
    console.print(table)
    names = ("batch_id", "members", "files", "skipped", "succeeded", "failed")
    console.print("  ".join(f"{name} {receipt[name]}" for name in names), soft_wrap=True)


def read_contents() -> dict[str, bytes]:
    with zipfile.ZipFile(SAMPLE) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def demonstrate(folder: Path) -> None:
    contents = read_contents()
    with started(folder) as service:
        console.print(f"inbox run serves {service.storage}")
        drop(service.storage)
        console.print(f"dropped {SAMPLE.name} into uploads/: {len(contents)} members")
        receipt = wait_for_receipt(service, len(contents))
        wait_until_moved(service)
        show_receipt(receipt)
        check_receipt(receipt, contents)
        check_volume(service.storage, receipt, contents)
        before = service.ask("status", receipt["batch_id"])

        drop(service.storage)
        console.print(f"dropped {SAMPLE.name} again")
        again = service.wait_for(
            "receipt that says duplicate", lambda: find_receipt(service.storage, duplicate=True), PROCESS_SECONDS
        )
        wait_until_moved(service)
        check_duplicate(receipt, again)
        demand(service.ask("status", receipt["batch_id"]) == before, "the second drop changed rows of the first")
        console.print(f"recognised: {again['state']}, {again['reason']}; no row was touched")

        code = service.stop()
        demand(code == 0, f"after SIGTERM the service ended with {code}, not 0")
        console.print("stopped with SIGTERM: exit 0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look around")
    keep = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="inbox-demo-"))
    try:
        demonstrate(folder)
    except DemoError as error:
        console.print(f"[bold red]demo failed:[/] {error}", soft_wrap=True)
        return 1
    finally:
        if keep:
            console.print(f"left for you: {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    console.print("[bold green]demo passed[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
