"""Priors from the archive: films to compare with, the days of studies, and readers' requests."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    # Not in batches, which drop the tables on SQLite: other tables refer to them.
    op.add_column("images", sa.Column("studied_on", sa.Date()))
    op.add_column("images", sa.Column("prior", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    op.add_column("films", sa.Column("prior", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    op.create_table(
        "prior_requests",
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("requested_at", TIME, nullable=False, index=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("films", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.Column("done_at", TIME),
    )


def downgrade() -> None:
    op.drop_table("prior_requests")
    op.drop_column("films", "prior")
    op.drop_column("images", "prior")
    op.drop_column("images", "studied_on")
