"""One small phantom corpus, and how to take it through the stages."""

import io
from pathlib import Path

from rich.console import Console

from chestai.cli.console import Screen
from chestai.cli.summary import Stage, Summary
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake

SMALL = (
    "+experiment=demo",
    "cluster=laptop",
    "phantom.count=480",
    "phantom.size=64",
    "network.size=64",
    "train.epochs=5",
    "train.batch_size=16",
    "evaluate.resamples=100",
    "evaluate.robustness_images=24",
    "queue.runs=5",
    "serve.port=0",
)


def make_small_config(folder: Path, *more: str) -> Config:
    """The demo's config, shrunk, with everything below one folder."""
    return conf.load([*SMALL, f"lake={folder / 'lake'}", f"phantom.root={folder / 'phantom'}", *more])


def run_quietly(stage: Stage, config: Config) -> Summary:
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
            self.summaries[name] = run_quietly(stage, self.config)
