"""Scores of offline scoring in the worklist."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import select

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, SCHEMAS
from chestai.model.registry import Registry
from pipelines.scoring.ledger import FILES, contents_schema, open_ledger
from serve.db.audit import verify_chain
from serve.db.database import Database, database_url
from serve.db.models import AuditRow
from serve.db.records import Study, load_study
from serve.db.worklist.page import WorklistFilter, load_page
from serve.inference.lake_scores import import_scores
from tests.serve.support.deployed import make_champion
from tests.support.models import FINDINGS

SCORED_AT = datetime(2026, 2, 1, 9, tzinfo=UTC)
PROBABILITIES = {"lake": (0.1, 0.35, 0.95), "elsewhere": (0.6, 0.1, 0.2)}


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a lake whose champion has scored an image of the snapshot, one of another corpus, and a broken file."""
    config, bundle = make_champion(tmp_path)
    lake = Lake(config.lake)
    facts = {"source": "nih", "patient_id": "88", "study_id": "88_2", "age_years": 61.0, "sex": "F", "view": "PA"}
    row = {
        "image_id": "00000088_002",
        "path": "/films/00000088_002.png",
        "sha256": sha("lake"),
        "split": "test",
        **facts,
    }
    version = lake.write(IMAGES, pa.Table.from_pylist([row], schema=SCHEMAS[IMAGES]))
    snapshot = lake.find_snapshot()
    lake.publish(replace(snapshot, snapshot_id="newer", built_at=datetime.now(UTC), versions={IMAGES: version}))
    ledger, _ = open_ledger(lake, 1, bundle.card)
    contents = [
        {
            "sha256": sha(name),
            "image_id": name,
            "bucket": bundle.triage.bucket(score := float(bundle.triage.score([values], FINDINGS)[0])),
            "triage_score": score,
            **{f"prob_{finding}": value for finding, value in zip(FINDINGS, values, strict=True)},
            "model_version": 1,
            "runtime": "torch fp32",
            "snapshot": "snap-1",
            "scored_at": SCORED_AT,
        }
        for name, values in PROBABILITIES.items()
    ]
    files: list[dict[str, Any]] = [
        {"path": "/films/00000088_002.png", "sha256": sha("lake")},
        {"path": "/archive/elsewhere.dcm", "sha256": sha("elsewhere")},
        {"path": "/archive/copy.dcm", "sha256": sha("elsewhere")},
        {
            "path": "/archive/broken.png",
            "sha256": sha("broken"),
            "reason": "truncated",
            "detail": "it ends early",
            "scored_at": SCORED_AT,
        },
    ]
    ledger.write(
        pa.Table.from_pylist(contents, contents_schema(FINDINGS)), pa.Table.from_pylist(files, FILES), False, False
    )
    return config


def load(config: Config, name: str) -> Study:
    database = Database(database_url(config))
    with database.read_session() as session:
        study = load_study(session, sha(name))
    database.close()
    assert study is not None
    return study


def test_scores_are_in_the_worklist_once(config: Config, screen: Screen) -> None:
    assert import_scores(config, screen) == import_scores(config, screen) == 2
    database = Database(database_url(config))
    with database.read_session() as session:
        page = load_page(session, WorklistFilter(), 60)
        audit = session.scalars(select(AuditRow.action)).all()
    assert [study.image_id for study in page.studies] == [sha("lake"), sha("elsewhere")], "most urgent first"
    assert audit == ["import"] * 4 and verify_chain(database).broken_at is None
    database.close()


def test_record_has_what_lake_and_scores_know(config: Config, screen: Screen) -> None:
    import_scores(config, screen)
    image, (prediction,) = load(config, "lake").image, load(config, "lake").predictions
    known = (image.file_name, image.source, image.patient_key, image.study_id, image.age_years, image.sex, image.view)
    assert known == ("00000088_002.png", "nih", "88", "88_2", 61.0, "F", "PA")
    assert (image.split, image.uri) == ("test", None), "it is read from the lake"
    assert prediction.probabilities == dict(zip(FINDINGS, PROBABILITIES["lake"], strict=True))
    assert (prediction.model_version, prediction.runtime, prediction.at) == (1, "torch fp32", SCORED_AT)
    assert prediction.drivers[0] == ("Pneumothorax", 0.95) and prediction.positives == ("Mass",)
    confidence = Registry(config.tracking, Lake(config.lake)).load("champion").bundle.confidence
    assert confidence is not None and prediction.confidence is not None and prediction.label_sets is not None
    for name, value in prediction.probabilities.items():
        band, ours = confidence.confidence(name, value or 0), prediction.confidence[name]
        assert (ours and (ours.low, ours.high, ours.n)) == (band and (band.low, band.high, band.n))
    assert prediction.confidence["Mass"] is not None and prediction.confidence["Pneumothorax"] is None
    assert {*prediction.label_sets.findings} == {*FINDINGS}
    other = load(config, "elsewhere").image
    assert (other.uri, other.patient_key, other.split) == ("/archive/elsewhere.dcm", None, None)


def test_files_that_were_not_scored_are_recorded_with_the_reason(config: Config, screen: Screen) -> None:
    import_scores(config, screen)
    study = load(config, "broken")
    assert study.rejection is not None and study.predictions == ()
    assert (study.rejection.reason, study.rejection.detail) == ("truncated", "it ends early")
    assert (study.rejection.at, study.image.uri) == (SCORED_AT, "/archive/broken.png")
    assert load(config, "lake").rejection is None


def test_version_that_scored_nothing_is_one_line(tmp_path: Path, screen: Screen) -> None:
    config, _ = make_champion(tmp_path)
    with pytest.raises(
        UserError, match=r"version 1 has scored nothing in .*: run `python -m pipelines.score"
    ) as caught:
        import_scores(config, screen)
    assert "\n" not in str(caught.value)
