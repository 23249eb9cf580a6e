"""A folder of all kinds of files, and helpers that compare its scores with a bundle's predictions."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from chestai.config.schema import Config
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from pipelines.scoring import corpus as corpora
from pipelines.scoring.ledger import read_scores
from tests.support.dicom import a_file, film, instance
from tests.support.models import image

FILES = {
    "a.png": image(1),
    "b.jpg": image(2, suffix=".jpg"),
    "deep/er/c.JPEG": image(3, suffix=".jpg", channels=3),
    "deep/d.dcm": film(4, **instance(4, "77")),
    "1.2.840.5": film(5, **instance(5, "78")),
    "twin of a.png": image(1),
    "cut.png": image(6)[:900],
    "empty.png": b"",
    "page.png": b"<html>not found</html>",
    "side.dcm": film(7, **instance(7, "79", ViewPosition="LL")),
}
REFUSED = {"cut.png": "truncated", "empty.png": "empty_file", "page.png": "not_an_image", "side.dcm": "not_frontal"}
OTHERS = {"notes.txt": b"Doe", "DICOMDIR": b"index", ".hidden.png": image(8)}


def write_files(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def score_config(config: Config, force: bool = False, **score: Any) -> Config:
    return config.model_copy(update={"force": force, "score": config.score.model_copy(update=score)})


def assert_matches_bundle(bundle: Bundle, row: Any, data: bytes) -> None:
    """Assert that a row of scores holds what the bundle predicts for a file."""
    alone = bundle.predict([preprocess.load(data, bundle.card.size)]).probabilities
    findings = bundle.card.findings
    found = row[[f"prob_{finding}" for finding in findings]].to_numpy(float)
    np.testing.assert_allclose(found, alone[0], rtol=0, atol=1e-5)
    (value,) = bundle.triage.score(alone, findings)
    assert row["triage_score"] == pytest.approx(value, abs=1e-5)
    assert row["bucket"] == bundle.triage.bucket(row["triage_score"])


def read_corpus_scores(lake: Lake, corpus: str) -> pd.DataFrame:
    found = read_scores(lake, 1, corpora.list_folder_corpus(corpus).rows).to_pandas()
    assert found["image_id"].is_unique
    return found.set_index("image_id")


def make_film(seed: int, number: int, study: int, **elements: Any) -> bytes:
    """A film of smooth noise, which differs clearly for each seed. number, study: of its UIDs."""
    coarse = np.random.default_rng(seed).integers(0, 4096, (6, 8)).astype(np.float32)
    pixels = cv2.resize(coarse, (120, 90), interpolation=cv2.INTER_CUBIC).clip(0, 4095).astype(np.uint16)
    identity = {
        "SOPInstanceUID": f"1.2.3.{number}",
        "SeriesInstanceUID": f"1.2.8.{number}",
        "StudyInstanceUID": f"1.2.9.{study}",
        "PatientID": f"PAT-{study}",
        "PatientName": f"Doe^{study}",
        "ViewPosition": "PA",
        "BodyPartExamined": "CHEST",
    }
    return a_file(pixels, **{**identity, **elements})
