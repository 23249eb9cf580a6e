"""Whether the receivers of DICOM objects have committed themselves to keep them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("commitment", sa.String(64)))
    op.add_column("deliveries", sa.Column("asked_at", sa.DateTime(timezone=True)))
    op.create_index("ix_deliveries_commitment", "deliveries", ["commitment"])


def downgrade() -> None:
    op.drop_index("ix_deliveries_commitment", "deliveries")
    op.drop_column("deliveries", "asked_at")
    op.drop_column("deliveries", "commitment")
