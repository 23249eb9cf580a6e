"""Fixtures shared by all tests: one Ray for the whole run, the phantom chain, and the real NIH sample if present."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from chestai.cli.console import Screen
from chestai.config import load as conf
from pipelines import etl, evaluate, phantom, score, train
from pipelines.cluster import ray_cluster as start_ray_cluster
from tests.support.chain import Chain, make_small_config
from tests.support.paths import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the shared Ray: `make test` runs them in a process of their own."""
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session", autouse=True)
def isolate_export_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep networks that tests export out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """An embedded Ray started and connected as on a laptop, with the dashboard that sweeps need."""
    with start_ray_cluster(conf.load(["cluster=laptop"]).cluster, dashboard=True):
        yield


@pytest.fixture
def screen() -> Screen:
    """A screen that prints to memory; read it with `screen.console.file.getvalue()`."""
    return Screen(Console(file=io.StringIO(), width=120))


@pytest.fixture(scope="session")
def nih_root() -> Path:
    """The sample of NIH originals in ../shared, or in the folder that CHESTAI_NIH names."""
    root = Path(os.environ.get("CHESTAI_NIH", ROOT.parent / "shared" / "nih-chestxray14"))
    if not (root / "Data_Entry_2017.csv").exists():
        pytest.skip(f"no NIH sample at {root}")
    return root


@pytest.fixture(scope="session")
def built(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A chain up to the gold tables of a phantom corpus."""
    chain = Chain(make_small_config(tmp_path_factory.mktemp("chain")))
    chain.run(("phantom", phantom.run), ("etl", etl.run))
    return chain


@pytest.fixture(scope="session")
def finished(built: Chain) -> Chain:
    """A chain that is trained, evaluated and scored."""
    built.run(("train", train.run), ("evaluate", evaluate.run), ("score", score.run))
    return built
