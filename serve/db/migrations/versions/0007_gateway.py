"""Films that the gateway received, and what goes out about them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "films",
        sa.Column("film_id", sa.String(64), primary_key=True),
        sa.Column("sop_instance", sa.String(64), nullable=False, index=True),
        sa.Column("study", sa.String(64), nullable=False, index=True),
        sa.Column("patient_key", sa.String(64), index=True),
        sa.Column("accession_key", sa.String(64), index=True),
        sa.Column("image_id", sa.String(64), index=True),
        sa.Column("result", JSON),
        sa.Column("reason", sa.String(100)),
        sa.Column("detail", sa.Text()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("reviews", sa.Integer(), nullable=False),
        sa.Column("received_at", TIME, nullable=False, index=True),
        sa.Column("done_at", TIME, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", sa.String(64), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("film_id", sa.String(64), sa.ForeignKey("films.film_id"), nullable=False, index=True),
        sa.Column("study", sa.String(64), nullable=False),
        sa.Column("destination", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
    )
    op.create_index("deliveries_queue", "deliveries", ["destination", "state", "number"])


def downgrade() -> None:
    op.drop_table("deliveries")
    op.drop_table("films")
