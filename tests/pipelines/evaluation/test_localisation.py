"""Does a trained network look where the lesion is? Phantoms know their boxes."""

import csv
from pathlib import Path

import pytest

from pipelines import etl, evaluate, phantom, train
from tests.support.chain import Chain, small

pytestmark = pytest.mark.slow


def test_a_trained_model_points_into_the_box_more_often_than_every_control(ray_cluster: None, tmp_path: Path) -> None:
    """The demo's network at 160 pixels, for a grid of 5 x 5 cells: at 96 it has 3 x 3, too coarse for most lesions."""
    words = ("phantom.count=1200", "phantom.size=128", "network.size=160", "train.epochs=8", "train.batch_size=32")
    chain = Chain(small(tmp_path, *words, "evaluate.resamples=1000"))
    chain.run(("phantom", phantom.run), ("etl", etl.run), ("train", train.run), ("evaluate", evaluate.run))
    folder = Path(chain.said["evaluate"].facts["model_card"]).parent
    with (folder / "localisation.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["cases"] == "all" and row["metric"] == "pointing"]
    whole = {row["maps"]: row for row in rows if not row["finding"]}
    assert set(whole) == {"model", "random map", "centre prior", "random weights"}
    low = float(whole["model"]["value_low"])
    for name, row in whole.items():
        if name != "model":
            assert low > float(row["value_high"]), (whole["model"], row)
