"""One Ray for the whole test run, and the real NIH sample where it is there."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from chestai.cli.console import Screen
from chestai.config import load as conf
from pipelines import etl, evaluate, phantom, score, train
from pipelines.cluster import ray_cluster as connected
from tests.support.chain import Chain, small
from tests.support.paths import ROOT


@pytest.fixture(scope="session", autouse=True)
def exports(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Exported networks of tests do not stay in the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A connected embedded Ray, as a laptop starts it."""
    with connected(conf.load(["cluster=laptop"]).cluster):
        yield


@pytest.fixture
def screen() -> Screen:
    """A screen that prints into memory: read it with `screen.console.file.getvalue()`."""
    return Screen(Console(file=io.StringIO(), width=120))


@pytest.fixture(scope="session")
def nih_root() -> Path:
    """The sample of NIH originals; CHESTAI_NIH names another place than ../shared."""
    root = Path(os.environ.get("CHESTAI_NIH", ROOT.parent / "shared" / "nih-chestxray14"))
    if not (root / "Data_Entry_2017.csv").exists():
        pytest.skip(f"no NIH sample at {root}")
    return root


@pytest.fixture(scope="session")
def built(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Phantoms and their gold tables."""
    chain = Chain(small(tmp_path_factory.mktemp("chain")))
    chain.run(("phantom", phantom.run), ("etl", etl.run))
    return chain


@pytest.fixture(scope="session")
def finished(built: Chain) -> Chain:
    """The chain to its end: trained, evaluated, scored."""
    built.run(("train", train.run), ("evaluate", evaluate.run), ("score", score.run))
    return built
