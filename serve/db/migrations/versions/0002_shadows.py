"""Predictions of shadow versions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "shadows",
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("model_version", sa.Integer(), primary_key=True),
        sa.Column("champion_version", sa.Integer(), nullable=False),
        sa.Column("probabilities", JSON, nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("bucket", sa.String(20), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("shadows")
