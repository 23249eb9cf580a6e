"""The first tables, and the triggers that make the audit append-only."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
WAITING = sa.text("reviewed_at IS NULL")

SQLITE = (
    "CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows stay as they are'); END",
    "CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows stay'); END",
    "CREATE TRIGGER audit_head_delete BEFORE DELETE ON audit_head "
    "BEGIN SELECT RAISE(ABORT, 'the head of the audit stays'); END",
    "CREATE TRIGGER audit_head_update BEFORE UPDATE ON audit_head WHEN NEW.sequence <= OLD.sequence "
    "BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END",
)
POSTGRESQL = (
    "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'audit rows stay as they are'; END $$",
    "CREATE FUNCTION audit_grow() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF NEW.sequence <= OLD.sequence THEN RAISE EXCEPTION 'the audit only grows'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER audit_rows BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_all BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_head_rows BEFORE DELETE ON audit_head FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_head_all BEFORE TRUNCATE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_head_update BEFORE UPDATE ON audit_head FOR EACH ROW EXECUTE FUNCTION audit_grow()",
)


def upgrade() -> None:
    _create_users()
    _create_images()
    _create_worklist()
    _create_jobs()
    _create_audit()


def downgrade() -> None:
    tables = "audit_head audit jobs reviews positives worklist predictions labels images api_keys users"
    for table in tables.split():
        op.drop_table(table)  # drops its indexes and triggers too
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_refuse")
        op.execute("DROP FUNCTION audit_grow")


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("prefix", sa.String(20), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(200), sa.ForeignKey("users.name"), nullable=False),
        sa.Column("scopes", sa.JSON()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
    )
    op.create_index("ix_api_keys_owner", "api_keys", ["owner"])


def _create_images() -> None:
    op.create_table(
        "images",
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("file_name", sa.Text()),
        sa.Column("view", sa.String(20)),
        sa.Column("height", sa.Integer()),
        sa.Column("width", sa.Integer()),
        sa.Column("split", sa.String(20)),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("uri", sa.Text()),
    )
    op.create_index("ix_images_received_at", "images", ["received_at"])
    op.create_table(
        "labels",
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("finding", sa.String(100), primary_key=True),
        sa.Column("source", sa.String(100), primary_key=True),
        sa.Column("value", sa.Double()),
    )
    op.create_table(
        "predictions",
        sa.Column("image_id", sa.String(64), sa.ForeignKey("images.image_id"), primary_key=True),
        sa.Column("model_version", sa.Integer(), primary_key=True),
        sa.Column("runtime", sa.String(50), nullable=False),
        sa.Column("probabilities", JSON, nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("bucket", sa.String(20), nullable=False),
        sa.Column("drivers", JSON, nullable=False),
        sa.Column("positives", JSON, nullable=False),
        sa.Column("snapshot", sa.String(100), nullable=False),
        sa.Column("at", TIME, nullable=False),
    )
    op.create_index("predictions_newest", "predictions", ["image_id", "at"])


def _create_worklist() -> None:
    op.create_table(
        "worklist",
        sa.Column("image_id", sa.String(64), sa.ForeignKey("images.image_id"), primary_key=True),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("urgency", sa.Integer(), nullable=False),
        sa.Column("falling", sa.Double(), nullable=False),
        sa.Column("split", sa.String(20)),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("moved_at", TIME),
        sa.Column("reviewed_at", TIME),
    )
    op.create_index("ix_worklist_moved_at", "worklist", ["moved_at"])
    op.create_index("ix_worklist_reviewed_at", "worklist", ["reviewed_at"])
    urgency, age = ["urgency", "falling", "received_at", "image_id"], ["received_at", "image_id"]
    op.create_index("worklist_urgency", "worklist", urgency)
    for name, columns in (("worklist_waiting_urgency", urgency), ("worklist_waiting_age", age)):
        op.create_index(name, "worklist", columns, sqlite_where=WAITING, postgresql_where=WAITING)
    op.create_table(
        "positives",
        sa.Column("image_id", sa.String(64), sa.ForeignKey("worklist.image_id"), primary_key=True),
        sa.Column("finding", sa.String(100), primary_key=True),
    )
    op.create_table(
        "reviews",
        sa.Column("review_id", sa.String(36), primary_key=True),
        sa.Column("image_id", sa.String(64), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("finding", sa.String(100), nullable=False),
        sa.Column("verdict", sa.String(2), nullable=False),
        sa.Column("notes", sa.Text()),
        sa.Column("reviewer", sa.String(200), nullable=False),
        sa.Column("at", TIME, nullable=False),
    )
    op.create_index("reviews_image", "reviews", ["image_id", "at"])


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(50), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer()),
        sa.Column("result", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_index("ix_jobs_created_at", "jobs", ["created_at"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.String(36), nullable=False, unique=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("object", sa.String(200), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    head = op.create_table(
        "audit_head",
        sa.Column("one", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(head, [{"one": 1, "sequence": 0, "hash": "0" * 64}])
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)
