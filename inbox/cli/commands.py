"""The commands: what they are called, what they take, and with what status they end."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

if TYPE_CHECKING:
    from inbox.config import Config

P = ParamSpec("P")
T = TypeVar("T")

FAILED = 1
MISTAKE = 2

app = typer.Typer(
    help="Drop a ZIP into a folder; get one database row per file, and a receipt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
database_app = typer.Typer(help="The database's schema.", no_args_is_help=True)
app.add_typer(database_app, name="db")

Storage = Annotated[
    Path | None, typer.Option("--storage", metavar="FOLDER", help="The shared volume; overrides STORAGE_BASE_PATH.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def _explained(command: Callable[P, T]) -> Callable[P, T]:
    """Turn the project's errors into one clear message and exit status 2; a surprise keeps its traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from inbox.core.errors import ConfigurationError, WorkerError

        try:
            return command(*args, **kwargs)
        except WorkerError as error:
            problems = error.problems if isinstance(error, ConfigurationError) else ()
            for problem in problems or (str(error),):
                print(f"inbox: {problem}", file=sys.stderr)
            raise typer.Exit(MISTAKE) from None
        except BrokenPipeError:  # the reader has seen enough; what is left must not fail again at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return run


def _load(storage: Path | None) -> "Config":
    from inbox.config import load_config

    return load_config(**({"storage_base_path": storage} if storage else {}))


@app.command()
@_explained
def run(
    storage: Storage = None,
    once: Annotated[bool, typer.Option("--once", help="Process what is there, then exit: 0 if all went well.")] = False,
) -> None:
    """Serve: take drops and process their files until SIGTERM."""
    from inbox.app.serving import serve
    from inbox.cli.screen import progress_of
    from inbox.core.logging import visible

    config = _load(storage)
    with progress_of(sys.stdout, wanted=once) as on_progress:
        verdict = serve(config, once=once, on_progress=on_progress)
    for name, reason in verdict.incomplete.items():
        print(f"inbox: {visible(name)} stays in the uploads: {reason}", file=sys.stderr)
    if once and not verdict.is_well:
        raise typer.Exit(FAILED)


@app.command()
@_explained
def status(
    batch: Annotated[
        str | None, typer.Argument(help="A batch: its id, the beginning of it, or the drop's name.")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many batches to list.")] = 20,
) -> None:
    """Show the newest batches, or one batch with its failed files."""
    from inbox.app.opening import opened
    from inbox.cli import asking, screen

    with opened(_load(storage), migrate=False) as at_hand, at_hand.sessions.reading() as session:
        if batch is None:
            screen.show_batches(asking.overview(session, limit=limit), as_json=as_json)
        else:
            screen.show_batch(asking.details(session, batch), as_json=as_json)


@app.command()
@_explained
def retry(
    target: Annotated[
        str, typer.Argument(metavar="BATCH|DOC", help="A batch (id or drop name), or one file's doc_id.")
    ],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Retry what failed: a batch's failed files, one file, or a refused archive."""
    from inbox.app.opening import opened
    from inbox.cli import screen
    from inbox.pipeline.retrying import Retrier
    from inbox.utils.clock import SystemClock

    with opened(_load(storage), migrate=False) as at_hand:
        screen.show_retried(Retrier(at_hand.sessions, at_hand.volume, SystemClock()).retry(target), as_json=as_json)


@app.command()
@_explained
def explain(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A drop's name in the uploads, or any path.")],
    storage: Storage = None,
    as_json: AsJson = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every member, so that damage shows.")] = False,
) -> None:
    """Say why a file waits, is refused or is a duplicate; nothing is changed."""
    from inbox.app.explaining import explain_file
    from inbox.cli import explained

    explanation = explain_file(_load(storage), file, deep=deep)
    explained.show(explanation, as_json=as_json)
    if not explanation.ruling.is_well:
        raise typer.Exit(FAILED)


@app.command()
@_explained
def check(storage: Storage = None, as_json: AsJson = False) -> None:
    """Look at settings, folders, database, file system and handlers: each finding with its mend."""
    from inbox.cli import screen
    from inbox.cli.checking import findings
    from inbox.config import load_config

    found = findings(lambda: load_config(**({"storage_base_path": storage} if storage else {})))
    screen.show_findings(found, as_json=as_json)
    if any(finding.is_bad for finding in found):
        raise typer.Exit(FAILED)


@app.command()
@_explained
def adopt(storage: Storage = None) -> None:
    """Make the volume that is mounted now the one that the database's rows speak of."""
    from inbox.app import mounting
    from inbox.app.opening import opened
    from inbox.utils.clock import SystemClock

    config = _load(storage)
    with opened(config, migrate=False) as at_hand:
        volume_id = mounting.adopt(at_hand, SystemClock())
    print(f"{config.storage_base_path} is the volume from now on: {volume_id}")


@app.command()
@_explained
def config(storage: Storage = None, as_json: AsJson = False) -> None:
    """Print every setting as it is in force, secrets masked."""
    from inbox.cli import screen

    screen.show_config(_load(storage), as_json=as_json)


@app.command()
@_explained
def logs(  # noqa: PLR0917 - one option each
    storage: Storage = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, across rotation.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines to show.")] = 20,
    batch: Annotated[str | None, typer.Option("--batch", help="Only this batch (beginning of its id).")] = None,
    file: Annotated[
        str | None, typer.Option("--file", help="Only this file: doc_id, part of its name, or a glob.")
    ] = None,
    level: Annotated[str | None, typer.Option("--level", help="At least this level.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the service's log file, for people or (--json) as it stands."""
    from inbox.cli.tailing import tail
    from inbox.core.errors import ConfigurationError
    from inbox.service.logtail import LogFilter

    path = _load(storage).log_file_path
    if path is None:
        raise ConfigurationError("there is no log file", hint="set LOG_FILE_PATH")
    tail(path, LogFilter(batch, file, level), follow_on=follow, lines=lines, as_json=as_json)


@database_app.command()
@_explained
def upgrade(storage: Storage = None) -> None:
    """Bring the schema to the newest revision."""
    from inbox.app.opening import opened
    from inbox.database.migrating import HEAD, current_revision

    config = _load(storage)
    with opened(config, migrate=True) as at_hand:
        print(f"the schema is at revision {current_revision(at_hand.engine) or HEAD}")
