"""How fast a folder is scored, compared with the limit of its parts and with a plain script.

    python -m tests.bench.score /data/nih/images

Copies of 1024 px originals, each with a different comment, scored by a DenseNet-121 with random weights at 224 px. All
ways take turns in one run; the medians are compared. Files are in the page cache.

- bare decode: as many processes as cores, side by side. bare forward: batches in one process with all cores. In fp32,
  bf16 and int8, which is calibrated on the originals.
- limit: 1 / (1 / decode + 1 / forward), because both share the same cores.
- plain script: as in public CheXNet code: PIL -> RGB -> torchvision transforms -> DenseNet-121 in eager fp32, a
  DataLoader with one worker per core; images per second after the first batch.
- scored: whole runs over one batch, few images and many images. The run over one batch measures the start-up; images
  per second are computed from the difference to the longest run. Memory should be the same for few and many images.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from chestai.cli.console import Screen
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.labels.findings import NIH14
from chestai.model.bundle import FORWARD_ENV
from chestai.model.runtimes.precision import resolve_precision
from pipelines import score
from pipelines.cluster import ray_cluster
from tests.bench.champion import SIZE, load_champion, register_champion
from tests.bench.etl_images import write_copies
from tests.bench.feed import BARE, measure_bare_on_all_cores
from tests.bench.record import measure_peak_memory, record

BATCH, PLAIN = 64, 160
RUNS = {"int8": (BATCH, 700, 2000), "bf16": (BATCH, 700, 2000), "fp32": (BATCH, 700)}  # images, by precision
if resolve_precision("auto", torch.device("cpu")) != "bf16":
    del RUNS["bf16"]  # this CPU has not
FORWARDED = 6  # batches


def measure_forward(lake: str, precision: str) -> float:
    """Measure images per second of this process."""
    predict = load_champion(lake, precision).forward
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE), dtype=np.uint8)
    predict(batch)
    started = time.monotonic()
    for _ in range(FORWARDED):
        predict(batch)
    return FORWARDED * BATCH / (time.monotonic() - started)


def measure_forward_in_process(lake: str, precision: str) -> float:
    """Run `measure_forward` in a process with the memory settings of workers."""
    command = [sys.executable, "-m", "tests.bench.score", "--forward", lake, precision]
    done = subprocess.run(command, env={**os.environ, **FORWARD_ENV}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


class PlainDataset(Dataset[torch.Tensor]):
    """Reads files as a plain script does."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.to_input = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        image: torch.Tensor = self.to_input(Image.open(self.paths[index]).convert("RGB"))
        return image


def measure_plain_script(folder: Path) -> float:
    """Measure images per second after the first batch."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = torchvision.models.densenet121(num_classes=len(NIH14)).eval()
    loader = DataLoader(
        PlainDataset(sorted(folder.iterdir())[:PLAIN]), batch_size=16, num_workers=torch.get_num_threads()
    )
    first, count = 0.0, 0
    with torch.no_grad():
        for batch in loader:
            torch.sigmoid(network(batch))
            if first:
                count += len(batch)
            first = first or time.monotonic()
    return count / (time.monotonic() - first)


def run_scoring(config: Config, folder: Path, out: Path, precision: str) -> Summary:
    """Score a folder on the connected Ray."""
    settings = config.score.model_copy(update={"corpus": str(folder), "out": str(out)})
    runtime = config.runtime.model_copy(update={"precision": precision})
    screen = Screen(Console(file=io.StringIO()))
    return score.run(config.model_copy(update={"score": settings, "runtime": runtime}), screen)


def main(originals: Path) -> None:
    rows: list[dict[str, object]] = []

    def note(what: str, images: int, rate: float, **more: float) -> None:
        about = {"start_s": 0.0, "total_s": 0.0, "peak_mib": 0.0, **more}
        rows.append({"what": what, "images": images, "images_per_s": round(rate, 2)})
        rows[-1] |= {name: round(value, 1) for name, value in about.items()}
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = {
            count: root / f"images{count}" for count in sorted({count for counts in RUNS.values() for count in counts})
        }
        for count, folder in folders.items():
            write_copies(sorted(originals.glob("*.png")), folder, count)
        few = folders[RUNS["int8"][1]]
        config = conf.load([f"lake={root / 'lake'}", f"score.batch_size={BATCH}"])
        register_champion(config, originals)

        def measure_parts() -> None:
            note("bare decode and resize, every core", BARE, measure_bare_on_all_cores(few))
            note("plain script", PLAIN, measure_plain_script(few))
            for precision in RUNS:
                note(
                    f"bare forward, {precision}", FORWARDED * BATCH, measure_forward_in_process(config.lake, precision)
                )

        measure_forward_in_process(config.lake, "fp32")  # exports the network
        measure_parts()
        for precision, counts in RUNS.items():
            for count in counts:
                with measure_peak_memory() as peak, ray_cluster(config.cluster):
                    done = run_scoring(config, folders[count], root / f"out-{precision}-{count}", precision)
                facts = done.facts
                note(
                    f"scored, {precision}",
                    count,
                    count / done.seconds,
                    start_s=facts["startup_seconds"],
                    total_s=done.seconds,
                    peak_mib=peak.mib,
                )
            measure_parts()
    print(record("score", rows))
    _print_summary(rows)


def _print_summary(rows: list[dict[str, object]]) -> None:
    def median(what: str) -> float:
        return statistics.median(float(str(row["images_per_s"])) for row in rows if row["what"] == what)

    decode, plain = median("bare decode and resize, every core"), median("plain script")
    for precision, (few, *_, many) in RUNS.items():
        limit = 1 / (1 / decode + 1 / median(f"bare forward, {precision}"))
        first, *_, last = (float(str(row["total_s"])) for row in rows if row["what"] == f"scored, {precision}")
        rate = (many - few) / (last - first)
        print(
            f"{precision}: {rate:.1f} images/s, {rate / limit:.2f} of the limit, {rate / plain:.2f} x the plain script"
        )


if __name__ == "__main__":
    if sys.argv[1] == "--forward":
        print(measure_forward(*sys.argv[2:]))
    else:
        main(Path(sys.argv[1]))
