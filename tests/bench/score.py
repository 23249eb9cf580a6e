"""How fast a folder is scored, against what its parts allow and against a plain script.

    python -m tests.bench.score /data/nih/images [images]

Copies of 1024 px originals, each with other bytes at its end, scored by a DenseNet-121 of random weights at 224 px. All
ways take turns in one run; the medians are compared. Files are in the page cache. Then as many images as are named are
scored in one go (8,000; and 1,000 first): their memory, and what an image costs.

- bare decode: as many processes as cores, side by side. bare forward: batches in one process with all cores.
- limit: 1 / (1 / decode + 1 / forward), for both share the same cores.
- plain script: as public CheXNet code has it: PIL -> RGB -> torchvision transforms -> DenseNet-121 in eager fp32, a
  DataLoader with as many workers as cores.
- scored: images a second after the first batch; the seconds until then are told apart.
"""

import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
import torchvision
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from chestai import config as conf
from chestai.bundle import FORWARD_ENV, Bundle, Card, Member
from chestai.calibration import Calibration
from chestai.findings import NIH14
from chestai.lake import Lake
from chestai.registry import Registry
from chestai.runtimes import Runtime, ready
from chestai.runtimes.effect import Effect
from chestai.screen import Screen
from chestai.sections import Config
from pipelines import score
from pipelines.cluster import connected
from pipelines.packing import register
from tests.bench.etl_images import copies
from tests.bench.feed import bare_on_all_cores
from tests.bench.record import memory, record

SIZE, BATCH, ROUNDS, FILES, PLAIN = 224, 64, 3, 1024, 320
PRECISIONS = ("fp32", "bf16")
FORWARDED = 6  # batches


def bundle() -> Bundle:
    """A DenseNet-121 of random weights that calls most images routine."""
    torch.manual_seed(0)
    count = len(NIH14)
    card = Card(
        name="chestai",
        findings=NIH14,
        size=SIZE,
        members=(Member(backbone="densenet121", mean=(0.5,), std=(0.25,)),),
        calibration=Calibration((1.0,) * count, (-2.0,) * count).to_dict(),
        thresholds=dict.fromkeys(NIH14, 0.2),
        triage=conf.load().triage.rule().within(NIH14).to_dict(),
        snapshot="none",
        run_id="none",
        synthetic=True,
        split_known=False,
        provenance={"pos_weight": [1.0] * count},
    )
    return Bundle(card, card.network().eval())


def bare_forward(precision: str) -> float:
    """Images a second of this process."""
    answer = ready(bundle().network, Runtime("auto", precision))  # type: ignore[arg-type]
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE), dtype=np.uint8)
    answer(batch)
    started = time.monotonic()
    for _ in range(FORWARDED):
        answer(batch)
    return FORWARDED * BATCH / (time.monotonic() - started)


def apart(precision: str) -> float:
    """`bare_forward` in a process that has memory as workers have it."""
    command = [sys.executable, "-m", "tests.bench.score", "--forward", precision]
    done = subprocess.run(command, env={**os.environ, **FORWARD_ENV}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


class Plain(Dataset[torch.Tensor]):
    """Files as a plain script reads them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.to_input = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        image: torch.Tensor = self.to_input(Image.open(self.paths[place]).convert("RGB"))
        return image


def plain_script(folder: Path) -> float:
    """Images a second after the first batch."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = torchvision.models.densenet121(num_classes=len(NIH14)).eval()
    loader = DataLoader(Plain(sorted(folder.iterdir())[:PLAIN]), batch_size=16, num_workers=torch.get_num_threads())
    first, seen = 0.0, 0
    with torch.no_grad():
        for batch in loader:
            torch.sigmoid(network(batch))
            if first:
                seen += len(batch)
            first = first or time.monotonic()
    return seen / (time.monotonic() - first)


def scored(config: Config, folder: Path, out: Path, precision: str) -> dict[str, Any]:
    """What a run says of itself."""
    wanted = config.score.model_copy(update={"corpus": str(folder), "out": str(out)})
    runtime = config.runtime.model_copy(update={"precision": precision})
    screen = Screen(Console(file=io.StringIO()))
    return score.run(config.model_copy(update={"score": wanted, "runtime": runtime}), screen).facts


def main(originals: Path, many: int) -> None:
    rows: list[dict[str, object]] = []

    def note(turn: int, what: str, rate: float, start_s: float = 0.0, peak_mib: float = 0.0) -> None:
        rows.append({"turn": turn, "what": what, "images_per_s": round(rate, 2)})
        rows[-1] |= {"start_s": round(start_s, 1), "peak_mib": round(peak_mib)}
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = root / "images"
        copies(sorted(originals.glob("*.png")), folder, FILES)
        config = conf.load([f"lake={root / 'lake'}", f"score.batch_size={BATCH}"])
        registry = Registry(config.tracking, Lake(config.lake))
        registry.connect()
        with mlflow.start_run():
            registry.promote(register(bundle(), registry))
        equal = Effect(images=0, mean=0.0, most=0.0, reference_auroc=0.5, auroc=0.5)
        registry.note_runtime(1, Runtime("auto", "bf16"), equal)  # random weights have no val to be checked on
        places = (root / f"out{number}" for number in itertools.count())
        with connected(config.cluster):
            for precision in PRECISIONS:
                scored(config, folder, next(places), precision)  # exports the network, starts Ray's workers
            for turn in range(ROUNDS):
                note(turn, "bare decode and resize, every core", bare_on_all_cores(folder))
                note(turn, "plain script", plain_script(folder))
                for precision in PRECISIONS:
                    note(turn, f"bare forward, {precision}", apart(precision))
                    facts = scored(config, folder, next(places), precision)
                    note(turn, f"scored, {precision}", facts["images_per_second"], facts["startup_seconds"])
        for count in (1000, many):
            copies(sorted(originals.glob("*.png")), root / str(count), count)
            with memory() as peak, connected(config.cluster):
                facts = scored(config, root / str(count), next(places), "bf16")
            note(0, f"{count} images, bf16", facts["images_per_second"], facts["startup_seconds"], peak.mib)
    print(record("score", rows))
    _tell(rows)


def _tell(rows: list[dict[str, object]]) -> None:
    def median(what: str, of: Callable[[dict[str, object]], object] = lambda row: row["images_per_s"]) -> float:
        return statistics.median(float(str(of(row))) for row in rows if row["what"] == what)

    decode, plain = median("bare decode and resize, every core"), median("plain script")
    for precision in PRECISIONS:
        limit = 1 / (1 / decode + 1 / median(f"bare forward, {precision}"))
        rate = median(f"scored, {precision}")
        print(
            f"{precision}: {rate:.1f} images/s, {rate / limit:.2f} of the limit, {rate / plain:.2f} x the plain script"
        )


if __name__ == "__main__":
    if sys.argv[1] == "--forward":
        print(bare_forward(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
