"""Films of the gateway, without a gateway."""

from chestai.clock import now
from serve.db.database import Database
from serve.gateway.db.models import FilmRow


def add_film_row(database: Database, image_id: str) -> None:
    """Records that an image came through the gateway."""
    with database.write_session() as session:
        at = now()
        session.add(
            FilmRow(
                film_id=image_id,
                sop_instance="1.2.3.4",
                study="1.2.3",
                image_id=image_id,
                revision=0,
                reviews=0,
                received_at=at,
                done_at=at,
            )
        )
