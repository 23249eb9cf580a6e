"""A small network, and its export to OpenVINO."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from chestai.model.classifier import Classifier
from chestai.model.runtimes import Runtime, open_session
from tests.chestai.model.runtime_network import classifier


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network(one_thread: None) -> Classifier:
    return classifier()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def exported(network: Classifier, cache: Path) -> Path:
    """The file of the network's export."""
    open_session(network, Runtime("openvino"), cache=cache / "one", threads=1)
    return next((cache / "one").iterdir())
