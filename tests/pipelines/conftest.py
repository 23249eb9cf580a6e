"""One small phantom corpus taken through every stage, once for all tests."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from chestai import config as conf
from chestai.command import Stage, Summary
from chestai.config import Config
from chestai.lake import Lake
from chestai.screen import Screen
from pipelines import etl, evaluate, phantom, score, train

SMALL = (
    "+experiment=demo",
    "phantom.count=240",
    "phantom.size=64",
    "network.size=64",
    "train.epochs=2",
    "evaluate.resamples=100",
    "serve.port=0",
)


def small(folder: Path, *more: str) -> Config:
    """The demo's config, shrunk, with everything below one folder."""
    return conf.load([*SMALL, f"lake={folder / 'lake'}", f"phantom.root={folder / 'phantom'}", *more])


def go(stage: Stage, config: Config) -> Summary:
    """Run a stage on a screen that nobody sees."""
    return stage(config, Screen(Console(file=io.StringIO(), width=120)))


class Chain:
    """The corpus's config and what each stage said."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lake = Lake(config.lake)
        self.said: dict[str, Summary] = {}

    def run(self, *stages: tuple[str, Stage]) -> None:
        for name, stage in stages:
            self.said[name] = go(stage, self.config)


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
