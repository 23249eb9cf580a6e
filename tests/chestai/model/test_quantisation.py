"""int8: a network is quantised once, by images, and answers nearly like itself in fp32."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.bundle import forward
from chestai.model.classifier import Classifier
from chestai.model.runtimes import Runtime, open_session, quantisation
from chestai.model.runtimes.precision import list_candidates, resolve_precision
from chestai.model.runtimes.quantisation import quantise
from chestai.model.runtimes.quantised_file import QuantisedFile
from tests.chestai.model.runtime_network import images, refuse_to_make

pytest.importorskip("nncf", reason="no NNCF: nothing quantises")
CALIBRATION = images(64, seed=7)


@pytest.fixture(scope="module")
def quantised(network: Classifier, cache: Path) -> bytes:
    return quantise(network, CALIBRATION, cache / "int8")


def test_int8_answers_nearly_like_fp32(network: Classifier, quantised: bytes) -> None:
    session = open_session(network, Runtime("auto", "int8", quantised=quantised), threads=1)
    assert session.name == "openvino int8"
    batch = images(33, seed=3)
    ours, theirs = session(batch), forward(network, batch)
    assert np.abs(ours.logits - theirs.logits).max() > 0, "it is quantised"
    for column in range(theirs.logits.shape[1]):
        assert np.corrcoef(ours.logits[:, column], theirs.logits[:, column])[0, 1] > 0.98
    assert np.abs(ours.logits - theirs.logits).mean() < 0.15 * theirs.logits.std()
    assert np.corrcoef(ours.evidence.ravel(), theirs.evidence.ravel())[0, 1] > 0.97, "maps stay usable"
    assert ours.evidence.shape == theirs.evidence.shape and ours.embedding.shape == theirs.embedding.shape
    assert len(quantised) < 0.5 * sum(value.nbytes for value in map(torch.Tensor.numpy, network.state_dict().values()))


def test_same_weights_and_images_are_quantised_once(
    network: Classifier, quantised: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "save_graph", refuse_to_make)
    assert quantise(network, CALIBRATION.copy(), cache / "int8") == quantised
    with pytest.raises(AssertionError, match="exported again"):
        quantise(network, CALIBRATION[:32], cache / "int8")


def test_quantising_opens_no_connection(network: Classifier, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", refuse_to_make)
    quantise(network, images(8, seed=9), cache / "int8")


def test_file_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    stored = QuantisedFile.write(lake, "one.zip", b"content")
    assert stored.read(lake) == b"content"
    lake.write_bytes(b"contents", "quantised", "one.zip")
    with pytest.raises(UserError, match="is not the network in int8 that was checked on val"):
        stored.read(lake)
    Path(lake.uri("quantised", "one.zip")).unlink()
    with pytest.raises(UserError, match=r"cannot be read: take runtime\.precision=fp32"):
        stored.read(lake)


def test_fastest_tries_what_the_machine_has() -> None:
    cpu, section = torch.device("cpu"), conf.load(["runtime.precision=fastest"]).runtime
    fast = resolve_precision("auto", cpu)
    assert list_candidates(section, cpu) == ["int8", *dict.fromkeys([fast, "fp32"])]
    torch_only = section.model_copy(update={"engine": "torch"})
    assert list_candidates(torch_only, cpu) == [*dict.fromkeys([fast, "fp32"])]
    with pytest.raises(UserError, match=r"runtime\.precision=int8 needs OpenVINO on a CPU"):
        list_candidates(torch_only.model_copy(update={"precision": "int8"}), cpu)
