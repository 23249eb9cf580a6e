"""The context that every step of one evaluation shares."""

import time
from dataclasses import dataclass

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry


@dataclass(frozen=True)
class EvaluationRun:
    """One run of the evaluate stage on the newest snapshot of its lake. started: `time.monotonic()` at its start."""

    config: Config
    screen: Screen
    lake: Lake
    snapshot: Snapshot
    registry: Registry
    started: float

    @staticmethod
    def start(config: Config, screen: Screen) -> "EvaluationRun":
        """Open the lake and the registry.

        Raises:
            UserError: the lake has no build.
        """
        started, lake = time.monotonic(), Lake(config.lake)
        return EvaluationRun(config, screen, lake, lake.find_snapshot(), Registry(config.tracking, lake), started)

    @property
    def split(self) -> str:
        """The split to measure."""
        return self.config.evaluate.split

    def check_split(self) -> None:
        """Raise UserError if the split has no image that a model can read."""
        if self.snapshot.splits.get(self.split, {}).get("files", 0) == 0:
            raise UserError(
                f"snapshot {self.snapshot.snapshot_id} has no frontal {self.split} image with a file to measure"
            )
