"""Studies of several images: one image of each is in the worklist."""

from datetime import timedelta
from typing import Any

import pytest
from alembic import command
from sqlalchemy import text

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.db.retention import purge
from serve.db.reviews import record_review
from serve.db.worklist.page import WorklistEntry, WorklistFilter, load_page
from serve.db.worklist.summary import summarise_worklist
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha

LATER = NOON + timedelta(minutes=100)


def add(database: Database, name: str, score: float, minutes: float = 90, **more: Any) -> None:
    with database.write_session() as session:
        image = make_image(name, minutes, **{"study_id": "1.2.3", **more})
        record_prediction(session, image, make_prediction(name, score, minutes))


def load(database: Database, **filters: Any) -> list[WorklistEntry]:
    with database.read_session() as session:
        return load_page(session, WorklistFilter(**filters), 60.0, at=LATER).studies


def names(entries: list[WorklistEntry]) -> list[str]:
    return [entry.image_id for entry in entries]


@pytest.mark.parametrize("scores", [(0.9, 0.6), (0.6, 0.9)])
def test_the_most_urgent_image_stands_for_its_study(database: Database, scores: tuple[float, float]) -> None:
    for name, score in zip("ab", scores, strict=True):
        add(database, name, score)
    add(database, "other", 0.1, study_id="1.2.4")
    add(database, "alone", 0.05, study_id=None)
    found = load(database)
    assert names(found) == [sha("ab"[scores.index(0.9)]), sha("other"), sha("alone")]
    assert [entry.images for entry in found] == [2, 1, 1]


def test_the_same_study_id_of_another_source_is_another_study(database: Database) -> None:
    add(database, "a", 0.9, source="nih")
    add(database, "b", 0.8, source="chexpert")
    add(database, "c", 0.7)
    assert len(load(database)) == 3


def test_an_image_scored_anew_can_take_the_lead(database: Database) -> None:
    add(database, "a", 0.9)
    add(database, "b", 0.6)
    add(database, "a", 0.1, minutes=91)
    assert names(load(database)) == [sha("b")]


def test_a_later_and_more_urgent_film_brings_a_read_study_back(database: Database) -> None:
    add(database, "a", 0.6)
    with database.write_session() as session:
        record_review(session, make_review("a", 91))
    assert load(database, reviewed=False) == []
    add(database, "b", 0.95, minutes=92)
    assert names(load(database, reviewed=False)) == [sha("b")]


def test_a_search_finds_every_image(database: Database) -> None:
    add(database, "a", 0.9)
    add(database, "b", 0.6)
    assert names(load(database, search="1.2.3")) == [sha("a"), sha("b")]
    assert names(load(database, search=sha("b")[:12])) == [sha("b")]


def test_numbers_count_studies(database: Database) -> None:
    add(database, "a", 0.9)
    add(database, "b", 0.6)
    with database.read_session() as session:
        found = summarise_worklist(session, 60.0, LATER)
    assert (found.total, found.unreviewed, found.buckets.urgent.total, found.buckets.soon.total) == (1, 1, 1, 0)


def test_when_the_lead_is_deleted_another_image_takes_its_place(database: Database) -> None:
    add(database, "old", 0.9, minutes=1)
    add(database, "new", 0.6, minutes=90)
    assert purge(database, NOON + timedelta(minutes=50), "system", lambda image_id: None).images == 1
    assert names(load(database)) == [sha("new")]


def test_the_migration_elects_as_the_program_does(database: Database) -> None:
    for name, score in (("a", 0.6), ("b", 0.9), ("c", 0.9)):
        add(database, name, score)
    add(database, "d", 0.3, source="nih")
    query = text("SELECT image_id, leads FROM worklist ORDER BY image_id")
    with database.read_session() as session:
        before = session.execute(query).all()
    with database.locked_alembic() as alembic:
        command.downgrade(alembic, "0007")
    database.migrate()
    with database.read_session() as session:
        assert session.execute(query).all() == before
