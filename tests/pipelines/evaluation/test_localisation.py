"""Whether a trained network looks at the lesion: phantoms come with exact boxes."""

import csv
from pathlib import Path

import pytest

from pipelines import etl, evaluate, phantom, train
from tests.support.chain import Chain, make_small_config

pytestmark = pytest.mark.slow


def test_trained_model_points_into_boxes_more_often_than_controls(ray_cluster: None, tmp_path: Path) -> None:
    """At 160 pixels the demo's network has a grid of 5 x 5 cells; at 96 it has 3 x 3, too coarse for most lesions."""
    words = ("phantom.count=1200", "phantom.size=128", "network.size=160", "train.epochs=8", "train.batch_size=32")
    chain = Chain(make_small_config(tmp_path, *words, "evaluate.resamples=1000"))
    chain.run(("phantom", phantom.run), ("etl", etl.run), ("train", train.run), ("evaluate", evaluate.run))
    folder = Path(chain.summaries["evaluate"].facts["model_card"]).parent
    with (folder / "localisation.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["cases"] == "all" and row["metric"] == "pointing"]
    by_map = {row["maps"]: row for row in rows if not row["finding"]}
    assert set(by_map) == {"model", "random map", "centre prior", "random weights"}
    low = float(by_map["model"]["value_low"])
    for name, row in by_map.items():
        if name != "model":
            assert low > float(row["value_high"]), (by_map["model"], row)
