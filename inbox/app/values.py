"""Plain values out of the settings, for the service and for whoever foresees what it does."""

from datetime import timedelta
from pathlib import Path
from typing import Final

from inbox.archives import Limits, Passwords, Terms
from inbox.config import Config
from inbox.domain import ClaimedFile
from inbox.handlers.base import File
from inbox.pipeline.runner.timing import Timing

SETTLE_SECONDS: Final = {"local": 2.0, "network": 5.0}


def quiet_of(config: Config, locality: str) -> timedelta:
    return timedelta(seconds=config.settle_seconds or SETTLE_SECONDS[locality])


def timing_of(config: Config, *, once: bool = False) -> Timing:
    return Timing(
        lease_life=timedelta(seconds=config.lease_seconds),
        damaged_grace=timedelta(seconds=config.damaged_grace_seconds),
        batch_time=timedelta(seconds=config.batch_processing_timeout),
        incomplete_after=timedelta(seconds=0 if once else config.incomplete_after_seconds),
        retry_base_seconds=config.retry_base_delay_seconds,
    )


def terms_of(config: Config) -> Terms:
    """Return on what terms archives are read. Raises ConfigurationError when the passwords cannot be read."""
    return Terms(
        Limits(
            max_archive_bytes=config.max_archive_bytes,
            max_member_bytes=config.max_member_bytes,
            max_members=config.max_members,
            max_compression_ratio=config.max_compression_ratio,
            max_seconds=config.max_extraction_seconds,
        ),
        Passwords(config.read_archive_passwords()),
        config.name_encoding,
        config.accept_outside_bytes,
    )


def file_for_handler(base: Path, claimed: ClaimedFile) -> File:
    """Return the file as its handler sees it."""
    return File(
        path=base / claimed.file_path,
        name=claimed.file_name,
        member_path=claimed.member_path,
        file_type=claimed.file_type,
        size_bytes=claimed.size_bytes,
        sha256=claimed.sha256,
        doc_id=claimed.doc_id,
        batch_id=claimed.batch_id,
        run_id=claimed.run_id,
        attempt=claimed.attempt,
    )
