"""A model on the lakes of other scanners: the drop, and what calibration to another prevalence gives back."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from pipelines import etl, evaluate, phantom
from tests.support.chain import SMALL, Chain, run_quietly
from tests.support.film_variations import ordinary


def make_site(folder: Path, seed: int, scanner: str) -> str:
    """Build a lake of other phantoms, photographed by another scanner; return its path."""
    words = [
        f"lake={folder / 'lake'}",
        f"phantom.root={folder / 'phantom'}",
        f"phantom.seed={seed}",
        "phantom.count=240",
    ]
    config = conf.load([*SMALL, *words, f"source.name={folder.name}"])  # its patients are others than at home
    run_quietly(phantom.run, config)
    for path in (folder / "phantom").rglob("*.png"):
        film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if film is not None and film.shape == (64, 64):
            noise = np.random.default_rng(len(path.name)).normal(0, 25, film.shape)
            changed = ordinary(scanner, film.astype(np.uint8)[None])[0] if scanner != "as it is" else film
            noisy = changed if scanner == "as it is" else np.clip(changed + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(path), noisy)
    run_quietly(etl.run, config)
    return config.lake


@pytest.mark.slow
def test_other_scanners_cost_ranking_and_prevalence_gives_calibration_back(finished: Chain, tmp_path: Path) -> None:
    near, far = make_site(tmp_path / "near", 77, "as it is"), make_site(tmp_path / "far", 78, "gamma 1.4")
    words = [f"lake={finished.config.lake}", "evaluate.model=champion", f"evaluate.across=[{near},{far}]"]
    summary = run_quietly(evaluate.run, conf.load([*SMALL, *words]))
    corpora = summary.facts["corpora"]
    assert list(corpora) == ["home", "near/lake", "far/lake"]
    assert corpora["far/lake"]["macro_auroc"] < corpora["near/lake"]["macro_auroc"]
    assert corpora["near/lake"]["ece_at_its_prevalence"] is not None
    page = Path(summary.facts["page"])
    rows = list(csv.DictReader(page.with_name("cross_corpus.csv").open()))
    macros = {row["corpus"]: row for row in rows if row["finding"] == "macro"}
    assert float(macros["far/lake"]["auroc"]) == pytest.approx(corpora["far/lake"]["macro_auroc"], abs=1e-4)
    assert len([row for row in rows if row["corpus"] == "home"]) == 1 + corpora["home"]["findings"]
    assert "far/lake" in page.read_text() and "<script" not in page.read_text()

    with pytest.raises(UserError, match="names a lake twice"):
        run_quietly(evaluate.run, conf.load([*SMALL, *words[:2], f"evaluate.across=[{near},{near}]"]))
