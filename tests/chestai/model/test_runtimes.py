"""Runtimes against eager fp32, at any batch size."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chestai.errors import UserError
from chestai.model import runtimes
from chestai.model.bundle import forward
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes import Runtime, open_session
from chestai.model.runtimes.cache import cached
from chestai.model.runtimes.precision import resolve_precision
from tests.chestai.model.runtime_network import SIZE, Undecided, classifier, images, random, refuse_to_make

HAS_BF16 = torch.cpu._is_avx512_bf16_supported()
# Bounds in probability for the stretched test network; seeds 1 to 3 differed by up to 5e-6 and 0.067.
# Plain random weights stay within 2e-2 in bf16, but their outputs hardly differ from one another.
BOUNDS = {"fp32": 1e-4, "bf16": 0.1}
PLAIN_BF16 = 2e-2


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_network_of_these_tests_has_distinct_outputs(network: Classifier) -> None:
    outputs = probabilities(forward(network, images(64))[0])
    assert outputs.std(axis=0).min() > 0.05 and np.ptp(outputs) > 0.5, "or any bound in probability would hold"


@pytest.mark.parametrize(
    "runtime",
    [
        Runtime(),
        Runtime(channels_last=False),
        Runtime(precision="bf16"),
        Runtime("openvino"),
        Runtime("openvino", precision="bf16"),
        Runtime("openvino", precision="auto"),
    ],
    ids=str,
)
def test_outputs_equal_eager_fp32(runtime: Runtime, network: Classifier, exported: Path) -> None:
    if runtime.precision == "bf16" and not HAS_BF16:
        pytest.skip("no bf16 on this CPU")
    session = open_session(network, runtime, cache=exported.parent, threads=1)
    precision = resolve_precision(runtime.precision, torch.device("cpu"))
    most = 0.0
    for number in (1, 16, 33, 2, 7, 1):
        batch = images(number, seed=number)
        logits, evidence, embedding = session(batch)
        expected, maps, embeddings = forward(network, batch)
        assert logits.dtype == evidence.dtype == embedding.dtype == np.float32
        assert logits.shape == (number, 3) and evidence.shape == maps.shape == (number, 3, 2, 2)
        assert embedding.shape == embeddings.shape == (number, 512)
        difference = np.abs(probabilities(logits) - probabilities(expected)).max()
        assert difference < BOUNDS[precision]
        most = max(most, difference)
        slack = 1e-4 if precision == "fp32" else 0.03
        np.testing.assert_allclose(evidence, maps, atol=slack * np.abs(maps).max())
        np.testing.assert_allclose(embedding, embeddings, atol=slack * np.abs(embeddings).max())
    assert precision == "fp32" or most > 1e-5, "it computed in fp32"


@pytest.mark.skipif(not HAS_BF16, reason="no bf16 on this CPU")
def test_bf16_is_close_to_fp32(cache: Path) -> None:
    network, batch = random(), images(33)
    expected = probabilities(forward(network, batch)[0])
    for engine in ("torch", "openvino"):
        session = open_session(network, Runtime(engine, "bf16"), cache=cache / "plain", threads=1)
        assert 0 < np.abs(probabilities(session(batch)[0]) - expected).max() < PLAIN_BF16


@pytest.mark.skipif(not HAS_BF16, reason="no bf16 on this CPU")
def test_openvino_bf16_is_as_accurate_as_torch_bf16(network: Classifier, exported: Path) -> None:
    batch = images(64, seed=9)
    expected = forward(network, batch)[0]
    errors = [
        np.abs(
            open_session(network, Runtime(engine, "bf16"), cache=exported.parent, threads=1)(batch)[0] - expected
        ).mean()
        for engine in ("torch", "openvino")
    ]
    assert errors[1] < 2 * errors[0]


def test_torch_fp32_equals_the_reference_exactly(network: Classifier) -> None:
    ours, theirs = open_session(network, Runtime(channels_last=False))(images(5)), forward(network, images(5))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_outputs_do_not_depend_on_the_batch_size(network: Classifier, exported: Path, threads: int) -> None:
    session = open_session(network, Runtime("openvino"), cache=exported.parent, threads=threads)
    most = 17
    whole = images(most)
    expected = forward(network, whole)
    for number in range(1, most + 1):
        for one, other in zip(session(whole[most - number :]), expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other[most - number :], atol=1e-4)


def test_outputs_survive_the_next_call(network: Classifier, exported: Path) -> None:
    session = open_session(network, Runtime("openvino"), cache=exported.parent, threads=1)
    logits, evidence, _ = session(images(2, seed=1))
    kept = logits.copy(), evidence.copy()
    session(images(2, seed=2))
    assert np.array_equal(logits, kept[0]) and np.array_equal(evidence, kept[1])


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_concurrent_threads_get_their_own_outputs(engine: runtimes.Engine, network: Classifier, exported: Path) -> None:
    session = open_session(network, Runtime(engine), cache=exported.parent, threads=1)
    batches = [images(1 + seed % 3, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(session, batches))
    for batch, (logits, _, _) in zip(batches, together, strict=True):
        np.testing.assert_allclose(logits, forward(network, batch)[0], atol=1e-4)


def test_keeps_the_network_unchanged(cache: Path) -> None:
    network = classifier().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    session = open_session(network, Runtime(channels_last=False))
    kept = session(images(2))[0]
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) and tensor.stride() == before[name].stride()
    with torch.no_grad():
        network.bias.add_(1.0)
    assert np.array_equal(session(images(2))[0], kept)


def test_ensemble_is_one_network(cache: Path) -> None:
    ensemble = Ensemble([classifier(1), classifier(2)], ("flip",)).eval()
    session = open_session(ensemble, Runtime("openvino"), cache=cache / "ensemble", threads=1)
    for number in (1, 3):
        ours, theirs = session(images(number)), forward(ensemble, images(number))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    assert np.abs(ours[0] - forward(classifier(1), images(3))[0]).max() > 0.01


# Exports


def test_exports_once(network: Classifier, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chestai.model.runtimes import openvino_export as module

    monkeypatch.setattr(module, "_export", refuse_to_make)
    before = exported.stat().st_mtime_ns
    for precision in ("fp32", "auto"):
        open_session(network, Runtime("openvino", precision), cache=exported.parent, threads=1)
    assert exported.stat().st_mtime_ns == before and list(exported.parent.iterdir()) == [exported]


def test_each_network_has_its_own_export(network: Classifier) -> None:
    from chestai.model.runtimes.openvino_export import network_key

    brighter = classifier()
    brighter.mean.add_(0.01)
    moved = classifier()
    with torch.no_grad():
        moved.bias[0] = torch.nextafter(moved.bias[0], torch.tensor(1e9))
    others: list[Classifier | Ensemble] = [brighter, moved, Ensemble([classifier()])]
    others += [Ensemble([classifier()], (view,)) for view in ("flip", "zoom")]
    keys = [network_key(one) for one in (network, *others)]
    assert len(set(keys)) == len(keys)
    assert network_key(classifier().to(memory_format=torch.channels_last)) == keys[0]


def test_replaces_damaged_export(network: Classifier, exported: Path, tmp_path: Path) -> None:
    damaged = tmp_path / exported.name
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    logits, _, _ = open_session(network, Runtime("openvino"), cache=tmp_path, threads=1)(images(3))
    np.testing.assert_allclose(logits, forward(network, images(3))[0], atol=1e-4)
    content[len(content) // 2] ^= 1
    assert damaged.stat().st_size == pytest.approx(len(content), rel=0.01) and damaged.read_bytes()[:2] == b"PK"
    names = ("model.xml", "model.bin")
    assert cached(damaged, names, refuse_to_make)["model.bin"] == cached(exported, names, refuse_to_make)["model.bin"]


# Errors


@pytest.mark.parametrize(
    ("runtime", "device", "message"),
    [
        (Runtime(precision="fp16"), "cpu", "precision=fp16 needs a GPU"),
        (Runtime("openvino", "fp16"), "cpu", "precision=fp16 needs a GPU"),
        (Runtime("torch", "int8"), "cpu", "precision=int8 is for OpenVINO"),
        (Runtime("auto", "int8"), "cpu", "precision=int8 needs a network that is quantised"),
        (Runtime("openvino", compiled=True), "cpu", "compiled=true is for engine=torch"),
        (Runtime(), "cuda:99", r"device=cuda:99 is not there: torch sees \d+ CUDA GPUs"),
    ],
)
def test_rejects_impossible_runtime_in_one_line(
    runtime: Runtime, device: str, message: str, network: Classifier
) -> None:
    with pytest.raises(UserError, match=f"^{message}[^\n]*$"):
        open_session(network, runtime, device)


def test_rejects_network_that_cannot_be_exported_in_one_line(tmp_path: Path) -> None:
    network = classifier()
    network.backbone = Undecided(network.backbone)
    with pytest.raises(UserError, match=r"^engine=openvino cannot take this network, take engine=torch: [^\n]+$"):
        open_session(network, Runtime("openvino"), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    session = open_session(network, Runtime("auto"), cache=tmp_path)
    assert session.name == "torch fp32", "auto takes what works"
    np.testing.assert_allclose(session(images(2)).logits, forward(network, images(2)).logits, atol=1e-4)


def test_reports_missing_compiler_in_one_line(network: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(network: nn.Module, dynamic: bool) -> Callable[..., object]:
        class Broken(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = network

            def forward(self, pixels: Tensor) -> Tensor:
                raise RuntimeError("no compiler\nand much more")

        return Broken()

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match=r"^compiled=true does not work here, take compiled=false: no compiler$"):
        open_session(network, Runtime(compiled=True))


@pytest.mark.slow
def test_compiled_outputs_equal_eager(network: Classifier) -> None:
    session = open_session(network, Runtime(compiled=True))
    for number in (1, 5, 33):
        for one, other in zip(session(images(number)), forward(network, images(number)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE - 1), np.uint8),
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((1, SIZE, SIZE), np.float32),
    ],
    ids=lambda one: f"{one.dtype}{one.shape}",
)
def test_rejects_invalid_pixels(
    engine: runtimes.Engine, pixels: NDArray[np.uint8], network: Classifier, exported: Path
) -> None:
    session = open_session(network, Runtime(engine), cache=exported.parent, threads=1)
    with pytest.raises(ValueError, match=rf"^pixels must be uint8 \(N, {SIZE}, {SIZE}\), N from 1, not "):
        session(pixels)


def test_accepts_pixels_of_any_memory_layout(network: Classifier, exported: Path) -> None:
    backwards = images(4)[::-1]
    for engine in ("torch", "openvino"):
        logits, _, _ = open_session(network, Runtime(engine), cache=exported.parent, threads=1)(backwards)
        np.testing.assert_allclose(logits, forward(network, backwards.copy())[0], atol=1e-4)


def test_uses_the_given_number_of_threads(network: Classifier, exported: Path) -> None:
    from chestai.model.runtimes.openvino_export import export
    from chestai.model.runtimes.openvino_runtime import open_session as open_exported

    cores = len(os.sched_getaffinity(0))
    for threads, expected in ((1, 1), (2, 2), (None, cores)):
        runtime = open_exported(export(network, exported.parent), "fp32", threads)
        assert runtime.together.get_property("INFERENCE_NUM_THREADS") == min(expected, cores)
        assert runtime.apart.get_property("NUM_STREAMS") == min(expected, cores)
    before = torch.get_num_threads()
    open_session(network, Runtime(), threads=before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)
    with pytest.raises(ValueError, match="threads must be 1 or more, not 0"):
        open_session(network, Runtime(), threads=0)
