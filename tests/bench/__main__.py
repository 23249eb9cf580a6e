"""Runs the benchmarks one after another, each in a process of its own, and writes docs/benchmarks.md from all results.

    python -m tests.bench --images /data/nih/images          those that end in under 30 minutes together on 2 cores
    python -m tests.bench --images /data/nih/images --all    the long ones too
    python -m tests.bench gradcam bootstrap                  only these

Without the folder of NIH's originals, the benchmarks that need it are left out. A benchmark that fails, or takes more
than twice its time, stops no other: its last results stay on the page, and the exit status is 1.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.summary.__main__ import write_page
from tests.support.paths import ROOT

IMAGES, CORPUS, SCRATCH = "{images}", "{corpus}", "{scratch}"
PATIENCE = 2  # times its minutes, after which a benchmark is ended
GRACE_S = 30  # for an interrupted benchmark to end its processes


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the plan.

    Attributes:
        name: The module in tests/bench.
        minutes: What it takes on 2 cores, about.
        words: Its arguments. `IMAGES` stands for the folder of NIH's originals, `CORPUS` for the one above it, which
            holds NIH's tables, `SCRATCH` for an empty folder.
        quick: Whether it runs without `--all`.
    """

    name: str
    minutes: float
    words: tuple[str, ...] = ()
    quick: bool = True

    @property
    def needs_images(self) -> bool:
        return bool({IMAGES, CORPUS} & {*self.words})


PLAN = (
    Benchmark("decode", 1, (IMAGES,)),
    Benchmark("decode_stages", 6, (IMAGES,), quick=False),
    Benchmark("runtime", 1, ("1", "16")),
    Benchmark("start", 4, (IMAGES,)),
    Benchmark("train", 3.5, ("--short", "112")),
    Benchmark("score", 6, (IMAGES,)),
    Benchmark("load", 7, (IMAGES,)),
    Benchmark("checks", 1, (IMAGES,), quick=False),
    Benchmark("bootstrap", 1, quick=False),
    Benchmark("gradcam", 1.5, quick=False),
    Benchmark("feed", 3, (IMAGES,), quick=False),
    Benchmark("etl_images", 4, (IMAGES,), quick=False),
    Benchmark("etl_rows", 9, (CORPUS,), quick=False),
    Benchmark("storage", 3, (IMAGES,), quick=False),
    Benchmark("report", 4, (CORPUS,), quick=False),
    Benchmark("train_profile", 6, quick=False),
    Benchmark("trial", 12, quick=False),
    Benchmark("sweep", 40, (SCRATCH,), quick=False),
    Benchmark("hostile", 4, (IMAGES,), quick=False),
    Benchmark("page", 5, quick=False),
    Benchmark("report_parser", 0.5, quick=False),
    Benchmark("retrieval", 7, quick=False),
)


def choose(plan: Sequence[Benchmark], names: Sequence[str], everything: bool) -> list[Benchmark]:
    """The benchmarks that are asked for: by name, or all, or the quick ones."""
    return [one for one in plan if (one.name in names if names else everything or one.quick)]


def run(benchmark: Benchmark, images: Path | None) -> bool:
    """Runs one. Returns whether it succeeded in time."""
    with tempfile.TemporaryDirectory() as scratch:
        places = {IMAGES: str(images), CORPUS: str(images and images.parent), SCRATCH: scratch}
        words = [places.get(word, word) for word in benchmark.words]
        with subprocess.Popen([sys.executable, "-m", f"tests.bench.{benchmark.name}", *words], cwd=ROOT) as process:
            try:
                return process.wait(60 * PATIENCE * benchmark.minutes) == 0
            except subprocess.TimeoutExpired:
                print(f"{benchmark.name} takes more than {PATIENCE} times its time", flush=True)
                interrupt(process)
                return False


def interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process as Ctrl-C does, so that it ends those that it started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_all(chosen: Sequence[Benchmark], images: Path | None) -> list[str]:
    """Runs the benchmarks that can run, and says how long it will take. Returns the names of those that failed."""
    skipped = [one.name for one in chosen if one.needs_images and images is None]
    if skipped:
        print(f"skipped, because they need the folder of NIH's originals: {', '.join(skipped)}", flush=True)
    able = [one for one in chosen if one.name not in skipped]
    failed = []
    for number, benchmark in enumerate(able):
        left = sum(one.minutes for one in able[number:])
        print(f"[{number + 1}/{len(able)}] {benchmark.name}, {benchmark.minutes:g} min of {left:g} left", flush=True)
        started = time.monotonic()
        if not run(benchmark, images):
            failed.append(benchmark.name)
        print(f"{benchmark.name} took {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return failed


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Run benchmarks and write their page.")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="NIH's originals, below NIH's tables")
    parser.add_argument("--all", action="store_true", help="the long ones too: about two hours")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    options = parser.parse_args(arguments)
    if unknown := {*options.names} - {one.name for one in PLAN}:
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}")
    if options.images and not options.images.is_dir():
        parser.error(f"{options.images} is no folder")
    failed = run_all(choose(PLAN, options.names, options.all), options.images and options.images.resolve())
    write_page()
    if failed:
        print(f"failed, their last results stay: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
