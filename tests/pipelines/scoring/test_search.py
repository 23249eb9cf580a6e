"""The search command, on an index of twelve images."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from pipelines import index, search
from tests.pipelines.scoring.test_index import IMAGES, TARGETS, read_index
from tests.support.chain import run_quietly
from tests.support.gold import borrow_champion, write_gold


@pytest.fixture(scope="module")
def indexed(registered: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("indexed")
    config = borrow_champion(registered, folder / "lake")
    write_gold(Lake(config.lake), "first", folder / "films", IMAGES, TARGETS)
    run_quietly(index.run, config)
    return config


def find(config: Config, screen: Screen, **values: Any) -> list[str]:
    """The image IDs that the command finds."""
    hits = search.run(config.model_copy(update={"search": config.search.model_copy(update=values)}), screen)
    return [hit.image_id for hit in hits]


def test_finds_by_image(indexed: Config, screen: Screen, tmp_path: Path) -> None:
    vectors = {name: np.frombuffer(row["embedding"], "<f2").astype(float) for name, row in read_index(indexed).items()}
    nearest = sorted(vectors, key=lambda name: -float(vectors[name] @ vectors["4.png"]))
    others = [name for name in nearest if name not in ("4.png", "5.png")]  # of one patient
    assert find(indexed, screen, image_id="4.png") == others
    assert all(name in screen.console.file.getvalue() for name in others)  # type: ignore[attr-defined]
    (tmp_path / "film.png").write_bytes(IMAGES["4.png"])
    assert find(indexed, screen, image=str(tmp_path / "film.png"), count=3) == others[:3]
    assert find(indexed, screen, image_id="4.png", view="PA") == [name for name in others if int(name[:-4]) % 2 == 0]


def test_leaves_out_a_copy(indexed: Config, screen: Screen, tmp_path: Path) -> None:
    """A copy of an indexed film is re-encoded: its content differs, and nobody says whose it is."""
    film = tmp_path / "copy.jpg"
    film.write_bytes(cv2.imencode(".jpg", preprocess.decode(IMAGES["4.png"]))[1].tobytes())
    found = find(indexed, screen, image=str(film), count=12)
    assert len(found) == 11 and "4.png" not in found


def test_finds_by_text_and_writes_files(indexed: Config, screen: Screen, tmp_path: Path) -> None:
    rows = read_index(indexed)
    files = {"csv": str(tmp_path / "hits.csv"), "html": str(tmp_path / "hits.html")}
    found = find(indexed, screen, text="mass without effusion; women", **files)
    women = [name for name, row in rows.items() if row["sex"] == "F"]
    assert found == sorted(women, key=lambda name: -rows[name]["prob_Mass"] * (1 - rows[name]["prob_Effusion"]))
    with open(files["csv"], newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["image_id"] for row in written] == found and "patient" not in written[0]
    page = Path(files["html"]).read_text()
    assert all(name in page for name in found) and page.count("data:image/jpeg") == len(found)
    assert "SYNTHETIC" in page
    assert "read as present Mass; absent Effusion; sex F" in screen.console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nothing to search by"),
        ({"text": "pacemaker"}, "not in this model's vocabulary: pacemaker"),
        ({"image": "/none.png"}, "search.image=/none.png cannot be read"),
        ({"image_id": "none"}, "search.image_id=none is not in the index"),
        ({"image": "a", "image_id": "b"}, "both set"),
        ({"labelled": ("Edema",)}, "does not know Edema"),
        ({"called": ("Pneumothorax",)}, "no operating point"),
    ],
)
def test_search_refuses(indexed: Config, screen: Screen, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find(indexed, screen, **values)
