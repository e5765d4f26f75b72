"""Alembic's entry: runs the migrations on the connection that `inbox.database.migrating` has opened and locked."""

from alembic import context

from inbox.database.migrating import VERSION_TABLE
from inbox.database.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
