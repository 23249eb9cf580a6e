"""How Alembic runs here: on the connection, in the transaction, that `Database.migrating` gives it."""

from alembic import context

from serve.db.models import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    transactional_ddl=True,  # SQLite has it too; Alembic thinks of an old driver
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
