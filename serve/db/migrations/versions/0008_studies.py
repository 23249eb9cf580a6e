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
    UPDATE worklist SET leads = {{no}} WHERE EXISTS (
        SELECT 1 FROM images AS mine, images AS theirs, worklist AS other
        WHERE mine.image_id = worklist.image_id AND theirs.image_id = other.image_id
        AND theirs.study_id = mine.study_id AND COALESCE(theirs.source, '') = COALESCE(mine.source, '')
        AND {BEFORE}
    )
"""


def upgrade() -> None:
    yes, no = ("1", "0") if op.get_bind().dialect.name == "sqlite" else ("true", "false")
    op.add_column("worklist", sa.Column("leads", sa.Boolean(), nullable=False, server_default=sa.text(yes)))
    op.execute(NOT_LEADING.format(no=no))
    with op.batch_alter_table("worklist") as table:
        table.alter_column("leads", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("worklist") as table:
        table.drop_column("leads")
