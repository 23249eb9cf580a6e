"""Hours, memory and disk of a training from measured rates, each with what it is based on."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chestai.errors import UserError

RATES = Path(__file__).with_name("rates.csv")
COLUMNS = ("stage", "hardware", "units", "unit", "backbone", "size", "images_per_s", "source")
MEASURES = {  # stage -> how to measure it
    "train": "`python -m tests.bench.train SIZE train.gpu=true`, and give plan.images_per_s=",
    "infer": "`python -m tests.bench runtime`, and give a row of it by",
    "etl": "`python -m tests.bench decode_stages`, and give a row of it by",
    "cache": "`python -m tests.bench decode_stages`, and give a row of it by",
}


@dataclass(frozen=True)
class Rate:
    """A measured rate: images per second of a stage on some units (cores, GPUs) of a hardware.

    backbone, size: Of the network; empty and 0 where there is none.
    """

    stage: str
    hardware: str
    units: int
    unit: str
    backbone: str
    size: int
    images_per_s: float
    source: str

    def __str__(self) -> str:
        network = f" {self.backbone} at {self.size} px" if self.backbone else ""
        return f"{self.images_per_s:g} images/s{network} on {self.units} {self.hardware} {self.unit} ({self.source})"


@dataclass(frozen=True)
class Estimate:
    """Images per second of a stage, and what that is based on, in words."""

    images_per_s: float
    basis: str

    def hours(self, images: float) -> float:
        """Hours for a number of images."""
        return images / self.images_per_s / 3600


def read_rates(path: Path = RATES) -> list[Rate]:
    """Reads a table of rates.

    Raises:
        UserError: It cannot be read, lacks a column, or has a cell that is no number above 0.
    """
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"plan.rates={path} cannot be read: {' '.join(str(error).split())}") from error
    missing = [name for name in COLUMNS if rows and rows[0].get(name) is None]
    if missing or not rows:
        raise UserError(
            f"plan.rates={path} has no {f'column {missing[0]}' if missing else 'row'}; {RATES} shows the form"
        )
    return [_parse(path, line, row) for line, row in enumerate(rows, start=2)]


def _parse(path: Path, line: int, row: dict[str, str]) -> Rate:
    try:
        numbers = int(row["units"]), int(row["size"] or 0), float(row["images_per_s"])
    except (TypeError, ValueError) as error:
        raise UserError(f"plan.rates={path}, line {line}: units, size and images_per_s are numbers") from error
    if numbers[0] < 1 or not numbers[2] > 0:
        raise UserError(f"plan.rates={path}, line {line}: units and images_per_s are above 0")
    return Rate(
        row["stage"], row["hardware"], numbers[0], row["unit"], row["backbone"], numbers[1], numbers[2], row["source"]
    )


def estimate_reading(rates: Sequence[Rate], stage: str, hardware: str, cores: int) -> Estimate:
    """The rate of a stage that works on files, in proportion to the cores.

    Raises:
        UserError: There is no rate for the hardware.
    """
    rate = _find(rates, stage, hardware)
    times = cores / rate.units
    return Estimate(rate.images_per_s * times, str(rate) + _factor(times, "cores"))


def estimate_network(
    rates: Sequence[Rate], stage: str, hardware: str, units: int, flops: float, flops_of: dict[tuple[str, int], float]
) -> Estimate:
    """The rate of a stage that runs the network, in proportion to the units and against the network's arithmetic.

    Args:
        flops: Of the network, an image.
        flops_of: Of the networks that were measured, by backbone and size.

    Raises:
        UserError: There is no rate for the hardware.
    """
    rate = _find(rates, stage, hardware)
    times, work = units / rate.units, flops / flops_of[rate.backbone, rate.size]
    heavier = f", {work:.3g} times its arithmetic an image" if abs(work - 1) > 0.005 else ""
    return Estimate(rate.images_per_s * times / work, str(rate) + _factor(times, rate.unit) + heavier)


def _find(rates: Sequence[Rate], stage: str, hardware: str) -> Rate:
    """The last row of a stage and hardware, so that a user's own table may correct an earlier row."""
    known = [rate for rate in rates if rate.stage == stage]
    found = [rate for rate in known if rate.hardware == hardware]
    if not found:
        names = ", ".join(dict.fromkeys(rate.hardware for rate in known)) or "none"
        how = MEASURES[stage] + (" or" if stage == "train" else "")
        raise UserError(f"no rate of {stage} on {hardware}, only on {names}: measure it with {how} plan.rates=FILE")
    return found[-1]


def _factor(times: float, unit: str) -> str:
    return "" if times == 1 else f", {times:.3g} times the {unit}"
