"""The only place that speaks SQL."""

from inbox.core.idempotency import use_store
from inbox.database import operations

use_store(operations)
