"""A small phantom corpus, taken through the stages of the pipeline."""

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


def make_small_config(folder: Path, *overrides: str) -> Config:
    """Make a small version of the demo's config, with all its data below one folder."""
    return conf.load([*SMALL, f"lake={folder / 'lake'}", f"phantom.root={folder / 'phantom'}", *overrides])


def run_quietly(stage: Stage, config: Config) -> Summary:
    """Run a stage without showing its output."""
    return stage(config, Screen(Console(file=io.StringIO(), width=120)))


class Chain:
    """A config, and the summary of each stage that ran with it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.lake = Lake(config.lake)
        self.summaries: dict[str, Summary] = {}

    def run(self, *stages: tuple[str, Stage]) -> None:
        """Run named stages one after the other."""
        for name, stage in stages:
            self.summaries[name] = run_quietly(stage, self.config)
