"""
The settings: read once from the environment and `.env`, checked as a whole, printed redacted.

Only the composition root sees `Config`; stages receive the plain values they need.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url

from inbox.core.errors import ConfigurationError, UnsafePathError
from inbox.secret_files import Unreadable, read_passwords, read_secret
from inbox.urls import MASK, POSTGRESQL_DRIVER, build_database_url, names_http_server, redact_url, str_url
from inbox.utils.filesystem import resolve_storage_path

GIB: Final = 1024**3
EMBEDDED_DATABASE: Final = ".inbox/inbox.db"
SECRET_SUFFIX: Final = "_file"  # noqa: S105 - the suffix of a variable's name

_OWN_FOLDERS: Final = ("processed", "quarantine", "receipts")
_TAKEN_NAMES: Final = frozenset({*_OWN_FOLDERS, "logs"})
_SECRET_FIELDS: Final = frozenset({"database_url", "database_password", "handler_url"})

HandlerVersion = Annotated[str, Field(max_length=64)]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
# 1e9 s are 31 years: more would leave what a date can hold
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


def default_worker_processes() -> int:
    """Return the number of cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


class Config(BaseSettings):
    """
    The settings of one inbox. Each field is read from the environment variable of its name in upper case.

    Construction checks every value by itself and raises pydantic's ValidationError (`load_config` turns that into a
    ConfigurationError that names every problem); `validate()` checks what needs a look at the machine.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
    )

    database_url: str = Field("", repr=False, description="Database; empty means the embedded SQLite file.")
    database_host: str = Field("", description="Database server, when no `DATABASE_URL` is given.")
    database_port: int = Field(5432, ge=1, le=65535, description="Its port.")
    database_user: str = Field("", description="User there.")
    database_password: str = Field("", repr=False, description="Password there.")
    database_url_file: Path | None = Field(default=None, description="File that holds `DATABASE_URL`, as a secret.")
    database_password_file: Path | None = Field(
        default=None, description="File that holds `DATABASE_PASSWORD`, as a secret."
    )
    database_name: str = Field("inbox", description="Database there.")
    database_max_connections: int = Field(10, ge=1, le=1000, description="Pool size of one process.")
    database_timeout: Seconds = Field(
        30.0, description="Seconds to wait for a connection or a lock; twice that for a statement."
    )
    database_migrate: bool = Field(default=True, description="Bring the schema up to date at start.")

    storage_base_path: Path = Field(Path("/shared"), description="The shared volume.")
    storage_uploads_dir: FolderName = Field("uploads", description="Where drops arrive, below the base.")
    storage_extracted_dir: FolderName = Field("extracted", description="Where archives are unpacked, below the base.")

    settle_seconds: Seconds | None = Field(
        default=None, description="Quiet time before a drop is judged; 2 local, 5 network."
    )
    take_when_closed: bool = Field(
        default=True,
        description="Take a whole local drop as soon as nobody has it open, without waiting for quiet.",
    )
    scan_interval_seconds: Seconds | None = Field(
        default=None, description="Between full scans of the uploads; 15 local, 5 network."
    )
    damaged_grace_seconds: Seconds = Field(
        10.0, description="A damaged drop younger than this may still be being written and waits."
    )
    incomplete_after_seconds: Seconds = Field(
        86_400.0, description="A drop still not whole after this time gets a receipt that says so; it stays."
    )

    max_archive_bytes: int = Field(10 * GIB, ge=1, description="Bytes written for one archive.")
    max_member_bytes: int = Field(2 * GIB, ge=1, description="Bytes written for one member.")
    max_members: int = Field(200_000, ge=1, description="Members of one archive.")
    max_compression_ratio: float = Field(
        200,
        gt=1,
        allow_inf_nan=False,
        description="Bytes written against bytes of the archive, once 256 MiB have been written.",
    )
    max_extraction_seconds: Seconds = Field(3600.0, description="How long the unpacking of one archive may take.")
    accept_outside_bytes: bool = Field(
        default=False, description="Take archives with other bytes before or behind them, as self-extractors have."
    )
    name_encoding: str = Field(
        "detect", description="How names that are not marked as UTF-8 are read: `detect`, or a code page as `cp932`."
    )
    archive_passwords_file: Path | None = Field(
        default=None, description="File with passwords for encrypted archives, one per line, as a secret."
    )

    worker_processes: int = Field(
        default_factory=default_worker_processes, ge=1, le=1024, description="Handler processes; default: cores."
    )
    unpacker_processes: int = Field(
        2, ge=1, le=64, description="Processes that unpack archives; large ones never have all of several."
    )
    file_processing_timeout: Seconds = Field(300.0, description="Seconds for one attempt on one file.")
    batch_processing_timeout: Seconds = Field(1800.0, description="Seconds for one run over a batch.")
    lease_seconds: Annotated[Seconds, Field(ge=1)] = Field(60.0, description="Life of a claim without heartbeat.")
    max_retry_attempts: int = Field(3, ge=1, le=100, description="Attempts on one file, the first included.")
    retry_base_delay_seconds: float = Field(
        2.0, ge=0, le=1e9, allow_inf_nan=False, description="Base of the backoff schedule."
    )
    circuit_breaker_failures: int = Field(
        20,
        ge=0,
        le=10_000,
        description="Latest outcomes of a handler; with 80 % of them failed for one cause its files wait. 0: never.",
    )
    shutdown_grace_seconds: Seconds = Field(25.0, description="From SIGTERM to the end; work in hand may finish.")

    handlers: Annotated[tuple[str, ...], NoDecode] = Field((), description="Python modules with handlers, by comma.")
    handler_url: str = Field("", repr=False, description="HTTP handler: every file is POSTed there.")
    handler_version: HandlerVersion = Field("", description="Version of the application behind `HANDLER_URL`.")
    retry_on_new_version: bool = Field(
        default=False, description="At start, try failed files again whose handler has another version than then."
    )
    unreadable_files: Literal["metadata", "skip"] = Field(
        "metadata", description="A type nobody can read: `metadata` ends as success, `skip` as skipped."
    )
    max_text_chars: int = Field(1_000_000, ge=0, description="Characters of extracted text kept per file.")
    not_archives: Literal["leave", "quarantine"] = Field(
        "leave", description="A drop that is no ZIP: `leave` it, or move it to `quarantine`; a receipt says so."
    )
    after_success: Literal["move", "delete", "keep"] = Field(
        "move", description="The archive of a completed batch: to `processed/`, deleted, or left."
    )

    http_host: str = Field("127.0.0.1", description="Where probes are served.")
    http_port: int = Field(8080, ge=0, le=65535, description="And on which port; 0 switches it off.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field("INFO", description="Least level.")
    log_format: Literal["json", "text"] = Field("json", description="Lines for programs, or for people.")
    log_same_cause: int = Field(
        10,
        ge=0,
        description="Lines of one cause that a process writes in full in 60 s (of successes ten times as many); "
        "the rest is counted in one line. 0: all of them.",
    )
    log_file_path: Path | None = Field(
        default=None, description="Rotating log file; default `logs/worker.log` below the base; `-` for none."
    )

    @field_validator("handlers", mode="before")
    @classmethod
    def _split_handlers(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name for name in (part.strip() for part in value.split(",")) if name)
        return value

    @field_validator("name_encoding")
    @classmethod
    def _is_code_page(cls, value: str) -> str:
        from inbox.archives import require_code_page  # the reader's own modules, which most commands do without

        return require_code_page(value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", "unreadable_files", "not_archives", "after_success", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("handler_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not names_http_server(value):
            raise ValueError("must be http://HOST/PATH or https://HOST/PATH")
        return value

    @field_validator("storage_uploads_dir", "storage_extracted_dir")
    @classmethod
    def _is_free(cls, value: str, info: ValidationInfo) -> str:
        if value in _TAKEN_NAMES:
            raise ValueError(f"{value}/ has a use of its own below the base; choose another name")
        if info.field_name == "storage_extracted_dir" and value == info.data.get("storage_uploads_dir"):
            raise ValueError("must differ from STORAGE_UPLOADS_DIR")
        return value

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in ("database_password", "database_url"):
            variable = f"{name}{SECRET_SUFFIX}".upper()
            path = os.environ.get(variable) or values.get(variable.lower())  # the latter comes from `.env`
            if path and not values.get(name):
                values[name] = read_secret(variable, path)
        return values

    @field_validator("database_password", "database_url", mode="before")
    @classmethod
    def _was_read(cls, value: object) -> object:
        if isinstance(value, Unreadable):
            raise ValueError(value.problem)  # noqa: TRY004 - pydantic collects ValueErrors only
        return value

    @field_validator("database_password")
    @classmethod
    def _has_user(cls, value: str, info: ValidationInfo) -> str:
        parts = info.data
        if value and parts.get("database_url") == "" and parts.get("database_host") and not parts.get("database_user"):
            raise ValueError("a password without a user would be left out; set DATABASE_USER")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_database(cls, value: str) -> str:
        return str_url(build_database_url(value)) if value else value

    @field_validator("archive_passwords_file")
    @classmethod
    def _holds_passwords(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_passwords(value)
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        base = self.storage_base_path.expanduser().absolute()
        set_ = object.__setattr__  # frozen, and still being made
        set_(self, "storage_base_path", base)
        if not self.database_url:
            set_(self, "database_url", str_url(self._url_of_parts()))
        if self.log_file_path is None:
            set_(self, "log_file_path", base / "logs" / "worker.log")
        elif str(self.log_file_path) == "-":
            set_(self, "log_file_path", None)
        else:
            set_(self, "log_file_path", self.log_file_path.expanduser())
        return self

    def _url_of_parts(self) -> URL:
        if self.database_host:
            return URL.create(
                POSTGRESQL_DRIVER,
                self.database_user or None,
                self.database_password or None,
                self.database_host,
                self.database_port,
                self.database_name,
            )
        return URL.create("sqlite", database=str(self.storage_base_path / EMBEDDED_DATABASE))

    def get_storage_path(self, subdir: str) -> str:
        """Return the absolute path of `subdir` below the storage base. Raises UnsafePathError if it would leave it."""
        return resolve_storage_path(subdir, base_path=str(self.storage_base_path))

    def read_archive_passwords(self) -> tuple[str, ...]:
        """
        Return the passwords for encrypted archives in the order of their file, each once. They are kept nowhere here.

        Raises ConfigurationError when the file is not what it was when the settings were read.
        """
        if self.archive_passwords_file is None:
            return ()
        try:
            return read_passwords(self.archive_passwords_file)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def validate(  # type: ignore[override] # the name is the contract; pydantic's is a deprecated relic
        self, *, make_folders: bool = True
    ) -> None:
        """
        Check what construction alone cannot: folders, one file system, a usable database URL.

        Raises ConfigurationError that names every problem at once, each with its mend. Creates missing folders, unless
        told otherwise: then it judges by what they would be made in.
        """
        problems = [*self._storage_problems(make_folders=make_folders), *self._database_problems()]
        if problems:
            raise ConfigurationError("the settings cannot work as they are", problems=tuple(problems))

    def _storage_problems(self, *, make_folders: bool) -> list[str]:
        problems: list[str] = []
        devices: dict[str, int] = {}
        for name in (self.storage_uploads_dir, self.storage_extracted_dir, *_OWN_FOLDERS):
            try:
                folder = Path(self.get_storage_path(name))
                if make_folders:
                    folder.mkdir(parents=True, exist_ok=True)
                else:
                    folder = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
                    os.scandir(folder).close()
                devices[name] = folder.stat().st_dev
            except UnsafePathError as error:
                problems.append(str(error))
                continue
            except OSError as error:
                problems.append(
                    f"STORAGE_BASE_PATH: cannot make {name}/ below {self.storage_base_path}: {error.strerror}; "
                    "mount a writable volume there or set STORAGE_BASE_PATH to a folder you own"
                )
                continue
            if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                problems.append(
                    f"{folder} is not writable by uid {os.geteuid()}; chown it, run as its owner, or mount it writable"
                )
        extracted = devices.get(self.storage_extracted_dir)
        problems.extend(
            f"{name}/ and {self.storage_extracted_dir}/ lie on different file systems; "
            "mount one volume at STORAGE_BASE_PATH, so that a move is one rename"
            for name, device in devices.items()
            if extracted is not None and device != extracted
        )
        return problems

    def _database_problems(self) -> list[str]:
        url = make_url(self.database_url)
        if url.get_backend_name() == "postgresql" and not url.database:
            return ["DATABASE_URL names no database; end it with /NAME"]
        if url.get_backend_name() == "sqlite" and (url.database in {None, "", ":memory:"}):
            return ["DATABASE_URL: SQLite in memory forgets everything; name a file: sqlite:////folder/inbox.db"]
        return []

    def redacted(self) -> dict[str, Any]:
        """Return every setting by its environment name, secrets masked, for people and programs to read."""
        shown: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in _SECRET_FIELDS and value:
                value = redact_url(value) if "url" in name else MASK
            if isinstance(value, Path):
                value = str(value)
            shown[name.upper()] = list(value) if isinstance(value, tuple) else value
        return shown


def load_config(**overrides: Any) -> Config:
    """Return the settings, or raise ConfigurationError that names every bad value by its environment variable."""
    try:
        return Config(**overrides)
    except ValidationError as error:
        problems = tuple(_explain(item) for item in error.errors(include_input=False, include_url=False))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        problems = (f".env: cannot be read: {reason}; mend it, or start in another folder",)
    raise ConfigurationError("some settings are not usable", problems=problems)


def _explain(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"]).upper()
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name and not message.startswith(name) else message
