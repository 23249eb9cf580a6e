"""Search as a part of the evidence, on real networks: what the card says is what brute force finds."""

import csv
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from chestai.imaging import preprocess
from chestai.model.bundle import StoredNetwork, forward
from chestai.model.classifier import Classifier
from chestai.model.pretrained.loading import find_imagenet
from chestai.model.registry import Registry
from chestai.retrieval.index_table import normalise
from pipelines.evaluation.probes import ProbePredictor
from tests.support.chain import Chain
from tests.support.models import SIZE, image, make_bundle

Row = dict[str, str]


def read_table(chain: Chain, name: str) -> list[Row]:
    folder = Path(chain.summaries["evaluate"].facts["model_card"]).parent
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def get_row(rows: list[Row], finding: str, ranking: str) -> Row:
    return next(row for row in rows if (row["finding"], row["ranking"]) == (finding, ranking))


def put_in_cache(cache: Path, backbone: str, seed: int) -> Classifier:
    """Random weights, where the hub's client keeps timm's ImageNet weights of a backbone."""
    torch.manual_seed(seed)
    published = timm.get_pretrained_cfg(backbone)
    assert published is not None and published.hf_hub_id is not None
    network = Classifier(backbone, 1, SIZE, published.mean, published.std)
    repository = cache / f"models--{published.hf_hub_id.replace('/', '--')}"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(network.backbone.state_dict(), repository / "snapshots" / "abc" / "model.safetensors")
    return network.eval()


def test_imagenet_weights_are_compared_where_they_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert find_imagenet("resnet10t", SIZE) is None, "and nothing is fetched"
    cached = put_in_cache(tmp_path, "resnet10t", 7)
    found = find_imagenet("resnet10t", SIZE)
    assert found is not None
    bundle = make_bundle()
    pixels = np.stack([preprocess.load(image(number), SIZE) for number in range(3)])
    rows = [{"image_id": str(number), "boxes": None, "corrupt": False, "embed": number > 0} for number in range(3)]
    outputs = ProbePredictor(StoredNetwork(bundle.card, bundle.weights), found)(pixels, rows)
    assert "embeddings" not in outputs[0]
    vectors = {row["network"]: np.frombuffer(row["vector"], "<f2") for row in outputs[2]["embeddings"]}
    assert {*vectors} == {"model", "random weights", "ImageNet weights"}
    for name, network in (("model", bundle.network), ("ImageNet weights", cached)):
        np.testing.assert_allclose(vectors[name], normalise(forward(network, pixels).embedding)[2], atol=2e-3)


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
    assert {*gains} == {"random weights", "same view", "random"} and min(gains.values()) > 0
