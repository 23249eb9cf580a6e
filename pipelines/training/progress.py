"""How far a training is: in its checkpoints, in the metrics of an epoch, and on the screen of whoever started it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

SHOW_EVERY_S = 0.5


@dataclass
class TrainingProgress:
    """How far the training is, as a checkpoint stores it.

    Attributes:
        epoch: Finished epochs.
        step: Finished steps of the current epoch.
        losses: Sum of the losses of the current epoch so far.
        labels: Number of known labels behind `losses`.
        best: Best value of `selection` so far.
        since: Epochs since then.
    """

    epoch: int = 0
    step: int = 0
    losses: float = 0.0
    labels: float = 0.0
    best: float = -float("inf")
    since: int = 0

    def after_epoch(self, selection: float) -> "TrainingProgress":
        """The progress at the start of the next epoch."""
        better = selection > self.best
        return TrainingProgress(self.epoch + 1, best=max(self.best, selection), since=0 if better else self.since + 1)


@dataclass
class EpochTimer:
    """Seconds of one epoch, and the images of all workers."""

    started: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    images: int = 0

    def measure_waits(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yields the items and counts the time until each arrives as waited."""
        while True:
            requested = time.monotonic()
            item = next(items, None)
            self.waited += time.monotonic() - requested
            if item is None:
                return
            yield item

    def metrics(self) -> dict[str, float]:
        """Images per second, and the share of the time spent waiting for data, 0 to 1."""
        seconds = time.monotonic() - self.started
        return {"images_per_s": self.images / seconds, "wait_share": self.waited / seconds}


class ProgressBoard:
    """Holds rank 0's progress for the screen of the driver; runs as an actor."""

    def __init__(self) -> None:
        self.shown = (0.0, "", 0.0)
        self.macro_auroc = float("nan")

    def show(self, share: float, note: str, waited: float) -> None:
        """Stores the finished share of the training and the share of this epoch spent waiting for data, both 0 to 1."""
        self.shown = (share, note, waited)

    def set_val(self, macro_auroc: float) -> None:
        """Stores the val macro-AUROC of the last epoch."""
        self.macro_auroc = macro_auroc

    def read(self) -> tuple[float, str]:
        """The finished share of the training, 0 to 1, and a line about it."""
        share, note, waited = self.shown
        macro = "" if np.isnan(self.macro_auroc) else f"  val AUROC {self.macro_auroc:.3f}"
        return share, f"{note}{macro}  waiting {waited:.0%}" if note else ""


@dataclass
class BoardReporter:
    """Tells the board about the steps of one epoch, at most every `SHOW_EVERY_S`; does nothing without a board."""

    board: Any
    epochs: int
    last: float = 0.0

    def report_step(self, progress: TrainingProgress, steps: int, totals: Tensor, timer: EpochTimer) -> None:
        """Shows the finished share and the mean loss, `totals[0] / totals[1]`, which is read only when it is shown."""
        now = time.monotonic()
        if self.board is None or now - self.last <= SHOW_EVERY_S:
            return
        self.last = now
        share = (progress.epoch + progress.step / steps) / self.epochs
        note = f"epoch {progress.epoch + 1}/{self.epochs}  loss {float(totals[0] / totals[1]):.3f}"
        self.board.show.remote(share, note, timer.waited / (now - timer.started))

    def report_val(self, macro_auroc: float) -> None:
        """Shows the val macro-AUROC of the last epoch."""
        if self.board is not None:
            self.board.set_val.remote(macro_auroc)
