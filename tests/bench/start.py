"""How long short runs take, from the command to the result: three of each, in turn.

    python -m tests.bench.start /data/nih/images

The champion is a DenseNet-121 at 224 px whose network was exported before; images are 1024 px originals. Programs and
files are in the page cache, as after a first run, which the ETL has not: its first of three may be slower.

- score ten images: `python -m pipelines.score corpus=FOLDER csv=FILE`, until the command has ended.
- serve, first answer: `python -m serve`, until it has answered `POST /infer` with an image.
- ETL of a small folder: `python -m pipelines.etl source=folders` with ten images, a new lake, until the command has
  ended.
- imports: of packages that take most of a start, each in a process of its own, less the start of Python.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chestai.config import load as conf
from tests.bench.champion import load_champion, register_champion
from tests.bench.etl_images import write_copies
from tests.bench.load import run_client, start_server
from tests.bench.record import record
from tests.support.processes import free_port

ROUNDS, IMAGES = 3, 10
PACKAGES = ("torch", "timm", "mlflow", "ray.data", "pyspark.sql", "openvino")
RUNS = ("score ten images", "serve, first answer", "ETL of a small folder")


def time_command(*words: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def time_serve(lake: str, images: Path, state: Path) -> float:
    """Measure from the command to the first answer, without the start of the client; with a new database."""
    port = free_port()
    settings = ["cluster=laptop", f"lake={lake}", f"serve.port={port}", f"state.url=sqlite:///{state}"]
    command = [sys.executable, "-m", "serve", *settings]
    started = time.monotonic()
    with start_server([*command, "serve.gate=false"], port) as (_, key):
        ready = time.monotonic() - started
        found = run_client(port, key, images, requests=1, at_a_time=1)
    ((status, milliseconds),) = found["responses"]
    assert status == 200
    return ready + milliseconds / 1000


def main(originals: Path) -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root, lake = Path(temporary), f"{temporary}/lake"
        register_champion(conf.load([f"lake={lake}"]), originals)
        load_champion(lake, "fp32")  # exports the network
        write_copies(sorted(originals.glob("*.png")), root / "images", IMAGES)
        for number, path in enumerate(sorted((root / "images").iterdir())):
            target = root / "classes" / ("ill" if number % 2 else "well") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        for turn in range(-1, ROUNDS):  # the first one fills the page cache
            score = ["pipelines.score", f"corpus={root / 'images'}", f"csv={root / 'scores.csv'}", "score.gate=false"]
            build = [
                "pipelines.etl",
                "source=folders",
                f"source.root={root / 'classes'}",
                f"lake={root / f'new{turn}'}",
            ]
            seconds = [
                time_command("-m", *score, f"lake={lake}", f"out={root / f'out{turn}'}", "cluster=laptop"),
                time_serve(lake, root / "images", root / f"state{turn}.db"),
            ]
            if turn < 0:
                continue
            seconds += [time_command("-m", *build, "cluster=laptop")]
            plain = time_command("-c", "pass")
            seconds += [time_command("-c", f"import {package}") - plain for package in PACKAGES]
            names = (*RUNS, *(f"import {package}" for package in PACKAGES))
            for what, taken in zip(names, seconds, strict=True):
                rows.append({"what": what, "run": turn, "seconds": round(taken, 2)})
                print(rows[-1], flush=True)
    print(record("start", rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
