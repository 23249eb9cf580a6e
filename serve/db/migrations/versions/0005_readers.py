"""For readers: who an image is of, who is reading a study, and verdicts with longer names."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NEW_COLUMNS: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("source", sa.String(100)),
    ("patient_key", sa.String(200)),
    ("study_id", sa.String(200)),
    ("age_years", sa.Double()),
    ("sex", sa.String(20)),
)


def upgrade() -> None:
    for name, kind in NEW_COLUMNS:
        op.add_column("images", sa.Column(name, kind))
    op.create_index("ix_images_study_id", "images", ["study_id"])
    op.create_index("images_patient", "images", ["patient_key", "received_at"])
    op.create_index("images_file_name", "images", ["file_name"])
    op.create_table(
        "claims",
        sa.Column("image_id", sa.String(64), sa.ForeignKey("worklist.image_id"), primary_key=True),
        sa.Column("reader", sa.String(200), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False, index=True),
    )
    with op.batch_alter_table("reviews") as reviews:
        reviews.alter_column("verdict", existing_type=sa.String(2), type_=sa.String(20), existing_nullable=False)


def downgrade() -> None:
    op.execute("DELETE FROM reviews WHERE verdict IN ('unsure', 'withdrawn')")
    with op.batch_alter_table("reviews") as reviews:
        reviews.alter_column("verdict", existing_type=sa.String(20), type_=sa.String(2), existing_nullable=False)
    op.drop_table("claims")
    for name in ("images_file_name", "images_patient", "ix_images_study_id"):
        op.drop_index(name, "images")
    for name, _ in NEW_COLUMNS:
        op.drop_column("images", name)
