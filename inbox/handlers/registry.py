"""Which handler gets which file, and how it is called."""

import asyncio
import importlib
import inspect
import sys
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Final, Literal
from weakref import WeakKeyDictionary

from inbox.core.errors import ConfigurationError, describe_error
from inbox.handlers.base import EVERY_FILE, File, HandlerSpec, Skip, declared_handlers

NO_HANDLER: Final = "NO_HANDLER"

# What each module brought along at its first import; a second `load_handlers` in the same process finds it here.
_declared_by: WeakKeyDictionary[ModuleType, tuple[HandlerSpec, ...]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """What the handlers need to know, as plain values; `handler_url` may carry credentials and is not shown."""

    modules: tuple[str, ...] = ()
    handler_url: str | None = field(default=None, repr=False)
    handler_version: str = ""
    timeout_seconds: float = 300.0
    unreadable: Literal["metadata", "skip"] = "metadata"
    max_text_chars: int = 1_000_000
    max_read_bytes: int = 100 * 1024**2
    storage_base: Path = Path("/shared")


@dataclass(frozen=True, slots=True)
class Registry:
    """The handlers in force, in the order in which they are asked; the first that wants a file gets it."""

    specs: tuple[HandlerSpec, ...]

    def choose(self, file: File) -> HandlerSpec | None:
        """Return the handler for a file, or None when nobody wants it."""
        return next((spec for spec in self.specs if spec.wants(file)), None)

    @property
    def sole(self) -> str | None:
        """The name of the handler that gets every file, or None when it depends on the file."""
        return self.specs[0].name if self.specs and self.specs[0].patterns == EVERY_FILE else None

    def versions(self) -> dict[str, str]:
        """Return each handler's version by its name."""
        return {spec.name: spec.version for spec in self.specs}

    def call(self, file: File) -> object:
        """
        Run the file's handler, a function or a coroutine function, and return its result or a `Skip`.

        Whatever the handler raises comes out unchanged.
        """
        return self.run(self.choose(file), file)

    def run(self, spec: HandlerSpec | None, file: File) -> object:
        """Do the same with the handler that was chosen for the file."""
        if spec is None:
            return Skip(NO_HANDLER)
        outcome: object = spec.function(file)
        return asyncio.run(_finish(outcome)) if inspect.isawaitable(outcome) else outcome


async def _finish(outcome: Awaitable[object]) -> object:
    return await outcome


def load_handlers(settings: HandlerSettings) -> Registry:
    """
    Import the handler modules and return the registry: theirs first, then the URL; without either, the default.

    Raises ConfigurationError for a module that cannot be imported or declares no handler.
    """
    specs = _import_all(settings.modules)
    if settings.handler_url:
        from inbox.handlers.http import http_handler  # urllib3 is loaded only where it is used

        asked = http_handler(settings.handler_url, settings.timeout_seconds, settings.storage_base)
        specs = (*specs, replace(asked, version=settings.handler_version))
    if not specs:
        from inbox.handlers.documents import documents_handler  # likewise

        specs = (documents_handler(settings.unreadable, settings.max_text_chars, settings.max_read_bytes),)
    return Registry(specs)


def _import_all(names: tuple[str, ...]) -> tuple[HandlerSpec, ...]:
    here = str(Path.cwd())
    if names and here not in sys.path:  # a console script does not have it there by itself
        sys.path.insert(0, here)
    brought = {name: _import(name) for name in names}
    found: dict[int, HandlerSpec] = {}
    for name, specs in brought.items():
        found.update((id(spec), spec) for spec in specs if not _comes_with_another(name, spec, brought))
    return tuple(found.values())


def _comes_with_another(name: str, spec: HandlerSpec, brought: dict[str, tuple[HandlerSpec, ...]]) -> bool:
    """Say whether a handler lives in another of the modules named, whose place in HANDLERS is then its own."""
    home = spec.function.__module__
    return home != name and any(spec is other for other in brought.get(home, ()))


def _import(name: str) -> tuple[HandlerSpec, ...]:
    """Return what a module declared while it was imported, by itself or through modules it imports."""
    already = len(declared_handlers())
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"HANDLERS: cannot import {name}: {describe_error(error)}", hint=_mend(name, error)
        ) from error
    if module not in _declared_by:
        fresh = declared_handlers()[already:]
        _declared_by[module] = fresh or tuple(spec for spec in declared_handlers() if _lives_in(module, spec))
    if not _declared_by[module]:
        raise ConfigurationError(
            f"HANDLERS: {name} declares no handler", hint="put @handler from inbox in front of a function there"
        )
    return _declared_by[module]


def _lives_in(module: ModuleType, spec: HandlerSpec) -> bool:
    """Say whether a module that had been imported before, or a part of that package, is the handler's home."""
    home = sys.modules.get(spec.function.__module__)
    if home is None or not f"{home.__name__}.".startswith(f"{module.__name__}."):
        return False
    return getattr(inspect.unwrap(spec.function), "__globals__", vars(home)) is vars(home)


def _mend(name: str, error: BaseException) -> str:
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        return "HANDLERS takes module names, such as handlers.invoices for handlers/invoices.py"
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return f"put it into {Path.cwd()} or a folder on PYTHONPATH"
    if isinstance(error, ModuleNotFoundError):
        return f"install {error.name} into the environment inbox runs in"
    return f"mend the module; `python -c 'import {name}'` shows the whole story"
