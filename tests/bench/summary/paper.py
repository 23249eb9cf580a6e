"""Scoring larger corpora, on paper: from the measured rate of a core."""

from dataclasses import dataclass

from tests.bench.summary.results import Results
from tests.bench.summary.sections.inference import find_scoring_rate
from tests.bench.summary.words import count, number

CORPORA = {"112,120": 112_120, "1 million": 10**6, "100 million": 10**8}
NODE_CORES, NODES = 64, 10
FILE_BYTES = 430_000  # an original of NIH, on average
SCORED = "scored, "
UNITS = {"days": 86_400, "h": 3_600, "min": 60, "s": 1}


@dataclass(frozen=True)
class Paper:
    """What the page says of larger corpora.

    Attributes:
        cores: Of the machine.
        core_rate: Images per second that a core scores.
        precision: In which it does.
        decode_rate: Images per second that a core decodes.
        start: Seconds that scoring took to start.
        rows: For each corpus, its size and the times on the machine, a node, and `NODES` nodes.
        node_rate: MB/s that a node reads.
    """

    cores: str
    core_rate: str
    precision: str
    decode_rate: str
    start: str
    rows: list[list[str]]
    node_rate: str


def compute(results: Results) -> Paper:
    """Computes it from the results of scoring in the fastest precision that was measured."""
    table = results["score"]
    runs = {what: table.where(what=what) for what in table.texts("what") if what.startswith(SCORED)}
    what, scored = max(runs.items(), key=lambda run: find_scoring_rate(run[1]))
    cores = int(scored.median("cores"))
    per_core = find_scoring_rate(scored) / cores
    starts = [start for run in runs.values() for start in run.values("start_s")]
    decode = table.where(what="bare decode and resize, every core").median("images_per_s")
    machines = (cores, NODE_CORES, NODES * NODE_CORES)
    return Paper(
        cores=str(cores),
        core_rate=number(per_core),
        precision=what.removeprefix(SCORED),
        decode_rate=number(decode / cores),
        start=f"{number(min(starts))} to {number(max(starts))} s",
        rows=[
            [name, *(word_duration(images / (per_core * machine), max(starts)) for machine in machines)]
            for name, images in CORPORA.items()
        ],
        node_rate=count(round(per_core * NODE_CORES * FILE_BYTES / 1e6, -1)),
    )


def word_duration(seconds: float, start: float) -> str:
    """A duration in its largest unit; less than the start takes is the start."""
    if seconds < start:
        return "start-up"
    unit = next((unit for unit, length in UNITS.items() if seconds >= length), "s")
    return f"{number(seconds / UNITS[unit])} {unit}"
