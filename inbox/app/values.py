"""Plain values out of the settings, for the service and for whoever foresees what it does."""

from datetime import timedelta
from typing import Final

from inbox.archives import Limits, Passwords, Terms
from inbox.config import Config
from inbox.pipeline.runner import Timing

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
