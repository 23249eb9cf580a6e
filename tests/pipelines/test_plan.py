"""The planner: its rates are those of the benchmarks, its arithmetic, and what it refuses to guess."""

import csv
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor

from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.errors import UserError
from chestai.model.classifier import Classifier
from pipelines import plan
from pipelines.training.cost import count_cost
from pipelines.training.estimate import read_rates
from tests.support.chain import run_quietly
from tests.support.paths import ROOT

RESULTS = ROOT / "tests" / "bench" / "results"


def run(tmp_path: Path, *words: str) -> Summary:
    return run_quietly(plan.run, conf.load([f"lake={tmp_path / 'lake'}", "plan.images=10000", "plan.cores=2", *words]))


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_rates_are_those_of_the_benchmarks() -> None:
    rates = {rate.stage: rate for rate in read_rates()}
    stages = {row["stage"]: float(row["images_per_s"]) for row in rows("decode_stages.csv")}
    assert rates["etl"].images_per_s == stages["ETL inspection, with Spark, wall time"]
    assert rates["cache"].images_per_s == stages["cache build, with Ray, wall time"]
    trained = [float(row["images_per_s"]) for row in rows("train_cpu.csv") if row["what"] == "Ray Train"]
    assert rates["train"].images_per_s == statistics.median(trained)
    forward = [row for row in rows("runtime.csv") if row["batch"] == "16" and row["what"].endswith("channels_last")]
    assert [rates["infer"].images_per_s] == [float(row["images_per_cpu_s"]) for row in forward[:1]]
    for rate in rates.values():
        assert (ROOT / rate.source.split(",")[0]).exists()


def test_network_costs_what_pytorch_allocates() -> None:
    """Arithmetic against the published figure of DenseNet-121, and saved bytes against a real step on the CPU."""
    assert count_cost(Classifier("densenet121", 14, 224, (0.5,) * 3, (0.2,) * 3)).flops == pytest.approx(
        5.7e9, rel=0.02
    )
    network = Classifier("resnet10t", 3, 64, (0.5,), (0.25,)).train()
    own = {one.data_ptr() for one in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        network(torch.zeros((2, 64, 64), dtype=torch.uint8), torch.ones((2, network.head.in_channels)))
    expected = sum(one.untyped_storage().nbytes() for one in kept.values()) // 2
    weights = sum(one.numel() for one in network.parameters())
    cost = count_cost(network)
    assert cost.saved == pytest.approx(expected, rel=0.02) and cost.weights == cost.learning == weights
    assert cost.training_bytes(8, moving_average=True) == 4 * 5 * weights + 8 * cost.saved


def test_frozen_backbone_keeps_next_to_nothing() -> None:
    learning, frozen = (
        count_cost(Classifier("resnet10t", 3, 64, (0.5,), (0.25,), frozen=frozen)) for frozen in (False, True)
    )
    assert frozen.learning == 3 * 512 + 3 and frozen.saved < learning.saved / 20
    assert frozen.flops == learning.flops


def test_measured_size_keeps_its_rate_and_others_are_scaled_by_arithmetic_and_cores(tmp_path: Path) -> None:
    words = ("network.size=112", "train.epochs=2", "split.test_fraction=0.2", "split.val_fraction=0.25")
    facts = run(tmp_path, *words).facts
    assert facts["images"] == "6,000 train, 2,000 val, 2,000 test"
    assert facts["training"].startswith(
        f"{12000 / 20.78 / 60:.1f} minutes: 12,000 images at 20.8/s, from 20.78 images/s"
    )
    assert "train_cpu.csv" in facts["training"] and "2 AMD EPYC cores" in facts["training"]
    twice = run(tmp_path, *words, "plan.cores=4").facts
    assert (
        twice["training"].startswith(f"{12000 / 41.56 / 60:.1f} minutes") and "2 times the cores" in twice["training"]
    )
    larger = run(tmp_path, *words, "network.size=224").facts["training"]
    assert "4.04 times its arithmetic" in larger and "at 5.14/s" in larger
    assert facts["disk"].startswith(f"{10000 * 112**2 / 1e9:.1f} GB of pixel cache")


def test_hardware_without_a_rate_is_refused_unless_one_is_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no rate of train on H100, only on AMD EPYC: measure it with .*plan\.rates="):
        run(tmp_path, "plan.gpu=H100")
    with pytest.raises(UserError, match="no rate of train on Xeon"):
        run(tmp_path, "plan.cpu=Xeon")
    with pytest.raises(
        UserError, match=r"no rate of etl on Xeon, only on AMD EPYC: .*bench decode_stages.*plan\.rates="
    ):
        run(tmp_path, "plan.cpu=Xeon", "plan.gpu=H100", "plan.images_per_s=500")
    facts = run(tmp_path, "plan.gpu=H100", "plan.gpus=4", "plan.images_per_s=500", "train.epochs=10").facts
    assert "at 2e+03/s" in facts["training"] or "at 2,000/s" in facts["training"]
    assert "plan.images_per_s=500 on a H100, 4 of them" in facts["training"]
    assert "a third of whose arithmetic" in facts["evaluation"]


def test_own_rates_come_beside_those_of_the_project(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    header = "stage,hardware,units,unit,backbone,size,images_per_s,source\n"
    own.write_text(header + 'train,H100,1,GPU,densenet121,224,900,"our bench, 2026"\n')
    facts = run(tmp_path, "plan.gpu=H100", "plan.gpus=2", f"plan.rates={own}", "network.channels=1").facts
    assert (
        "from 900 images/s densenet121 at 224 px on 1 H100 GPU (our bench, 2026), 2 times the GPU" in facts["training"]
    )
    for text, line in ((header, "has no row"), ("stage,hardware\ntrain,H100\n", "has no column units")):
        own.write_text(text)
        with pytest.raises(UserError, match=line):
            run(tmp_path, f"plan.rates={own}")
    own.write_text(header + "train,H100,1,GPU,densenet121,224,fast,x\n")
    with pytest.raises(UserError, match=r"own\.csv, line 2: units, size and images_per_s are numbers"):
        run(tmp_path, f"plan.rates={own}")
    with pytest.raises(UserError, match=r"plan\.rates=/nowhere\.csv cannot be read"):
        run(tmp_path, "plan.rates=/nowhere.csv")


def test_without_images_the_snapshot_counts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no build"):
        run_quietly(plan.run, conf.load([f"lake={tmp_path / 'lake'}"]))
