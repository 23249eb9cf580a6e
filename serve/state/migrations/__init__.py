"""The migrations, in the form that Alembic reads; `serve.state.database` runs them."""
