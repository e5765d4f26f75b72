"""What a handler author imports, and nothing else."""

from inbox.core.errors import (
    LLMError,
    ParseError,
    PermanentError,
    RateLimitError,
    RetryableError,
    TimeoutError,  # noqa: A004 - the name is part of the product's contract
    WorkerError,
)
from inbox.handlers.base import File, Skip, handler

__all__ = [
    "File",
    "LLMError",
    "ParseError",
    "PermanentError",
    "RateLimitError",
    "RetryableError",
    "Skip",
    "TimeoutError",
    "WorkerError",
    "handler",
]
