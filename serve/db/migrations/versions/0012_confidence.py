"""What val said about the probabilities of a prediction, by the version that made it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("predictions", sa.Column("confidence", JSON))
    op.add_column("predictions", sa.Column("label_sets", JSON))


def downgrade() -> None:
    op.drop_column("predictions", "label_sets")
    op.drop_column("predictions", "confidence")
