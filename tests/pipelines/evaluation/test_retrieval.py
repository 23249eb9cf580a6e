"""Search as a part of the evidence, on real networks: what the card says is what brute force finds."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chestai.imaging import preprocess
from chestai.model.bundle import forward
from chestai.model.registry import Registry
from chestai.retrieval.index_table import normalise
from tests.support.chain import Chain

Row = dict[str, str]


def read_table(chain: Chain, name: str) -> list[Row]:
    folder = Path(chain.summaries["evaluate"].facts["model_card"]).parent
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def get_row(rows: list[Row], finding: str, ranking: str) -> Row:
    return next(row for row in rows if (row["finding"], row["ranking"]) == (finding, ranking))


def test_search_by_image_equals_a_loop_over_val(finished: Chain) -> None:
    """Each test image against each val image, embedded anew from its file."""
    snapshot = finished.lake.find_snapshot()
    bundle = Registry(finished.config.tracking, finished.lake).load("1").bundle
    rows = finished.lake.read_usable(snapshot, ["split", "path"]).to_pylist()
    chosen = [row for row in rows if row["split"] in ("test", "val")]
    pixels = np.stack([preprocess.load(Path(row["path"]).read_bytes(), bundle.card.size) for row in chosen])
    vectors = normalise(normalise(forward(bundle.network, pixels).embedding).astype(np.float16))
    targets = np.array([row["targets"] for row in chosen], float)
    is_query = np.array([row["split"] == "test" for row in chosen])
    order = np.argsort(-(vectors[is_query] @ vectors[~is_query].T), axis=1)[:, :10]
    table = read_table(finished, "search_by_image.csv")
    for column, finding in enumerate(bundle.card.findings):
        right = targets[~is_query, column][order][targets[is_query, column] == 1]
        row = get_row(table, finding, "model")
        assert (int(row["queries"]), int(row["relevant"])) == (len(right), int(targets[~is_query, column].sum()))
        if row["precision"]:
            assert float(row["precision"]) == pytest.approx(right.mean(), abs=2e-3), finding
            chance = float(get_row(table, finding, "random")["precision"])
            assert chance == pytest.approx(targets[~is_query, column].mean())
    rankings = {row["ranking"] for row in table}
    assert rankings == {"model", "random weights", "same view", "random"}


@pytest.mark.slow
def test_like_images_have_the_finding_of_the_query_clearly_more_often_than_chance(finished: Chain) -> None:
    table = read_table(finished, "search_by_image.csv")
    gains = {row["ranking"]: float(row["gain_low"]) for row in table if row["finding"] == "macro" and row["gain"]}
    print([(r["ranking"], r["precision"], r["gain"], r["gain_low"]) for r in table if r["finding"] == "macro"])
    assert {*gains} == {"random weights", "same view", "random"} and min(gains.values()) > 0
