"""How long a report with intervals takes at the size of NIH's test list: every AUROC and AUPRC, macro and micro.

    python -m tests.bench.bootstrap

25,596 images of 2,797 patients and 14 findings, drawn at random, with float32 probabilities as a network outputs them;
the time does not depend on their values. `core_seconds` is CPU time, so that other work on the machine does not count.
The usual way is a loop over resamples with scikit-learn: a few of its resamples are timed and multiplied up.
"""

import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from chestai.labels.findings import NIH14
from chestai.metrics.bootstrap import Bootstrap, clustered_weights
from chestai.metrics.comparison import compare_auroc
from chestai.metrics.operating_points import POINTS, measure_operating_points
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import measure_performance
from tests.bench.record import measure_peak_memory, record

IMAGES, PATIENTS, RESAMPLES = 25_596, 2_797, 1_000
LOOPED = 3  # resamples of the loop over scikit-learn


def make_corpus() -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.int_]]:
    """Make targets and probabilities (N, 14) and patients (N,), with as uneven image counts per patient as NIH's."""
    generator = np.random.default_rng(0)
    shares = generator.pareto(1.5, size=PATIENTS) + 0.1
    patients = np.append(np.arange(PATIENTS), generator.choice(PATIENTS, IMAGES - PATIENTS, p=shares / shares.sum()))
    targets = (generator.random((IMAGES, len(NIH14))) < np.geomspace(0.24, 0.003, len(NIH14))).astype(np.float64)
    logits = generator.normal(size=targets.shape) + 1.2 * targets - 2
    return targets, (1 / (1 + np.exp(-logits))).astype(np.float32), patients


def run_sklearn_loop(
    targets: NDArray[np.float64], probabilities: NDArray[np.float32], patients: NDArray[np.int_]
) -> None:
    """Compute the same numbers resample by resample."""
    for row in np.concatenate(list(clustered_weights(patients, LOOPED, 0))):
        for measure in (roc_auc_score, average_precision_score):
            for column in range(len(NIH14)):
                measure(targets[:, column], probabilities[:, column], sample_weight=row)
            measure(targets.ravel(), probabilities.ravel(), sample_weight=np.repeat(row, len(NIH14)))


def main() -> None:
    targets, probabilities, patients = make_corpus()
    generator = np.random.default_rng(1)
    other = probabilities + generator.normal(scale=0.05, size=probabilities.shape)
    thresholds = {point: generator.random(len(NIH14)).tolist() for point in POINTS}

    predictions = Predictions.of(targets, probabilities, patients, NIH14)

    def report(resamples: int) -> Callable[[], object]:
        return lambda: measure_performance(predictions, Bootstrap(resamples))

    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "report: AUROC, AUPRC, macro, micro": (RESAMPLES, report(RESAMPLES)),
        "the same without intervals": (0, report(0)),
        "scikit-learn in a loop, multiplied up": (
            LOOPED,
            lambda: run_sklearn_loop(targets, probabilities, patients),
        ),
        "macro-AUROC of two answers compared": (
            RESAMPLES,
            lambda: compare_auroc(targets, probabilities, {"other": other}, patients, Bootstrap(RESAMPLES)),
        ),
        "rates at four operating points": (
            RESAMPLES,
            lambda: measure_operating_points(predictions, thresholds, Bootstrap(RESAMPLES)),
        ),
    }
    rows = [make_row(what, resamples, run) for what, (resamples, run) in ways.items()]
    print(record("bootstrap", rows))


def make_row(what: str, resamples: int, run: Callable[[], object]) -> dict[str, object]:
    """Time one way; the time of fewer resamples is scaled to `RESAMPLES`."""
    with measure_peak_memory() as peak:
        began, began_core = time.perf_counter(), time.process_time()
        run()
        seconds, core_seconds = time.perf_counter() - began, time.process_time() - began_core
    times = RESAMPLES / resamples if resamples else 1
    return {
        "what": what,
        "images": IMAGES,
        "findings": len(NIH14),
        "resamples_timed": resamples,
        "seconds": round(seconds * times, 2),
        "core_seconds": round(core_seconds * times, 2),
        "peak_mib": round(peak.mib) or "",
        "numpy": version("numpy"),
    }


if __name__ == "__main__":
    main()
