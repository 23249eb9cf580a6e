"""What can be read as FHIR about the gateway's films, and what reviewers said at each revision."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "film_revisions",
        sa.Column("film_id", sa.String(64), sa.ForeignKey("films.film_id"), primary_key=True),
        sa.Column("revision", sa.Integer(), primary_key=True),
        sa.Column("reviews", JSON, nullable=False),
    )
    op.create_table(
        "fhir_resources",
        sa.Column("resource_id", sa.String(36), primary_key=True),
        sa.Column("film_id", sa.String(64), sa.ForeignKey("films.film_id"), primary_key=True, index=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("lasting", sa.String(36), index=True),
        sa.Column("finding", sa.Boolean(), nullable=False),
    )
    op.create_index("fhir_resources_of_kind", "fhir_resources", ["kind", "resource_id"])


def downgrade() -> None:
    op.drop_table("fhir_resources")
    op.drop_table("film_revisions")
