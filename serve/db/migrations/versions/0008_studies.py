"""One image of a study leads it in the worklist."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BEFORE = """
    (other.urgency, other.falling, other.received_at, other.image_id)
    < (worklist.urgency, worklist.falling, worklist.received_at, worklist.image_id)
"""
NOT_LEADING = f"""
    UPDATE worklist SET leads = false WHERE EXISTS (
        SELECT 1 FROM images AS mine, images AS theirs, worklist AS other
        WHERE mine.image_id = worklist.image_id AND theirs.image_id = other.image_id
        AND theirs.study_id = mine.study_id AND COALESCE(theirs.source, '') = COALESCE(mine.source, '')
        AND {BEFORE}
    )
"""


def upgrade() -> None:
    # Not in a batch, which drops the table on SQLite: other tables refer to it.
    op.add_column("worklist", sa.Column("leads", sa.Boolean(), nullable=False, server_default=sa.text("true")))
    op.execute(NOT_LEADING)


def downgrade() -> None:
    op.drop_column("worklist", "leads")
