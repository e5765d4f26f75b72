"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

from inbox.cli.commands import app


def main() -> None:
    """Run the command line; the process ends with the command's exit status: 0, 1 (something failed), 2 (a mistake)."""
    app()


__all__ = ["app", "main"]
