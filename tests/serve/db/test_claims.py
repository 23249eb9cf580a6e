"""Claims: one reader a study, until the claim ends."""

from datetime import timedelta

import pytest

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.db.worklist.claims import CLAIM_TIME, Claim, claim_study, release_study
from serve.db.worklist.page import WorklistFilter, load_page
from tests.serve.support.processes import run_forked
from tests.serve.support.samples import NOON, make_image, make_prediction, sha

SECOND = timedelta(seconds=1)


@pytest.fixture
def claimed(database: Database) -> Database:
    """A database with a study that rita has claimed at noon."""
    with database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("a"))
        assert claim_study(session, sha("a"), "rita", NOON) == Claim("rita", NOON + CLAIM_TIME)
    return database


def claim(database: Database, reader: str, after: timedelta) -> Claim:
    with database.write_session() as session:
        return claim_study(session, sha("a"), reader, NOON + after)


def test_claim_excludes_others_until_it_ends(claimed: Database) -> None:
    assert claim(claimed, "omar", CLAIM_TIME - SECOND) == Claim("rita", NOON + CLAIM_TIME)
    assert claim(claimed, "omar", CLAIM_TIME) == Claim("omar", NOON + 2 * CLAIM_TIME)


def test_reader_prolongs_a_claim(claimed: Database) -> None:
    assert claim(claimed, "rita", 4 * SECOND).until == NOON + 4 * SECOND + CLAIM_TIME
    assert claim(claimed, "omar", CLAIM_TIME).reader == "rita"


def test_only_its_reader_releases_a_claim(claimed: Database) -> None:
    for reader, then in (("omar", "rita"), ("rita", "omar")):
        with claimed.write_session() as session:
            release_study(session, sha("a"), reader)
        assert claim(claimed, "omar", SECOND).reader == then


def test_worklist_shows_claims_that_have_not_ended(claimed: Database) -> None:
    for after, reader in ((CLAIM_TIME - SECOND, "rita"), (CLAIM_TIME, None)):
        with claimed.read_session() as session:
            (study,) = load_page(session, WorklistFilter(), 60, at=NOON + after).studies
        assert study.claimed_by == reader and (study.claimed_until is None) == (reader is None)


def test_unknown_study_cannot_be_claimed(database: Database) -> None:
    with pytest.raises(LookupError), database.write_session() as session:
        claim_study(session, sha("nothing"), "rita", NOON)


def test_readers_that_claim_at_once_get_one_claim(database: Database) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image("a"), make_prediction("a"))
    code = (
        "from serve.db.database import Database\n"
        "from serve.db.worklist.claims import claim_study\n"
        "from tests.serve.support.samples import NOON, sha\n"
        "database = Database(url)\n"
        "with database.write_session() as session:\n"
        "    print(claim_study(session, sha('a'), f'reader {number}', NOON).reader)\n"
    )
    readers = run_forked(code, database.url.render_as_string(hide_password=False), 6).split("\n")[:-1]
    assert len(readers) == 6 and len(set(readers)) == 1
