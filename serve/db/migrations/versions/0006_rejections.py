"""Why an image was not scored."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "rejections",
        sa.Column("image_id", sa.String(64), sa.ForeignKey("images.image_id"), primary_key=True),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("rejections")
    op.execute("DELETE FROM images WHERE image_id NOT IN (SELECT image_id FROM predictions)")
