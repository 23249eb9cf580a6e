"""Triggers against inserts that would replace a row of the audit, or add a second head.

SQLite deletes what `INSERT OR REPLACE` replaces without firing delete triggers. A row is also replaced by its rowid.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

SQLITE = (
    "CREATE TRIGGER audit_insert BEFORE INSERT ON audit "
    "WHEN EXISTS (SELECT 1 FROM audit WHERE sequence = NEW.sequence OR event_id = NEW.event_id) "
    "OR EXISTS (SELECT 1 FROM audit WHERE rowid = NEW.rowid AND NEW.rowid > 0) "
    "BEGIN SELECT RAISE(ABORT, 'audit rows stay as they are'); END",
    "CREATE TRIGGER audit_head_insert BEFORE INSERT ON audit_head WHEN EXISTS (SELECT 1 FROM audit_head) "
    "BEGIN SELECT RAISE(ABORT, 'the audit has one head'); END",
)
POSTGRESQL = (
    "CREATE FUNCTION audit_one_head() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF EXISTS (SELECT 1 FROM audit_head) THEN RAISE EXCEPTION 'the audit has one head'; END IF; "
    "RETURN NEW; END $$",
    "CREATE TRIGGER audit_head_insert BEFORE INSERT ON audit_head FOR EACH ROW EXECUTE FUNCTION audit_one_head()",
)


def upgrade() -> None:
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_insert")
        op.execute("DROP TRIGGER audit_head_insert")
    else:
        op.execute("DROP TRIGGER audit_head_insert ON audit_head")
        op.execute("DROP FUNCTION audit_one_head")
