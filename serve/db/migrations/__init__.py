"""The migrations, in the form that Alembic reads; `serve.db.database` runs them."""
