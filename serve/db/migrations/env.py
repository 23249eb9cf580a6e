"""Alembic's environment: runs on the connection, and in the transaction, of `Database.locked_alembic`."""

from alembic import context

from serve.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # SQLite supports it too; Alembic assumes an old driver
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
