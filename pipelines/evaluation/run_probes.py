"""Putting a network through its probes on Ray, and what they found in numbers."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.evaluation.evidence import RobustnessReport
from chestai.imaging.heatmap import is_shown
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES
from chestai.lake.snapshot import Snapshot
from chestai.metrics.comparison import Comparison, compare
from chestai.metrics.localisation import BoxMatch, LocalisationReport, localisation
from chestai.model.bundle import Bundle, forward
from chestai.model.seen_patients import patient_hash
from pipelines.evaluation.measure import ProbeReports
from pipelines.evaluation.probes import BOX_LIST, CONDITIONS, MAPS, ProbePredictor, measure_latency
from pipelines.inference.engine import run_predictor
from pipelines.inference.labelled_predictions import LabelledPredictions, load_usable_rows, match_predictions

PATIENT = ("source", "patient_id")
HEATMAP_METHOD = "Grad-CAM in closed form: the head is linear over pooled features"


@dataclass(frozen=True)
class ProbeResults:
    """A network's answers over some splits, and what else it was asked about images of one of them.

    located: image_id -> per boxed finding and kind of map, a dict of finding, maps, hit, iou, iobb. corrupted: image_id
    -> logits a condition.
    """

    answers: LabelledPredictions
    located: Mapping[str, list[dict[str, Any]]]
    corrupted: Mapping[str, list[list[float]]]


def run_probes(
    config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, bundle: Bundle, split: str, others: Sequence[str]
) -> ProbeResults:
    """Run a bundle over a split and others: one pass, in which images of the split are put through the probes."""
    settings, rows = config.evaluate, load_usable_rows(lake, snapshot, {split, *others})
    boxes = load_boxes(lake, snapshot, bundle.card.findings)
    here = np.equal(np.array(rows["split"].to_pylist(), dtype=str), split)
    ids = rows["image_id"].to_pylist()
    keys = np.array(
        [patient_hash(*pair) for pair in zip(*(rows[one].to_pylist() for one in PATIENT), strict=True)], dtype=str
    )
    corrupt = np.zeros(len(ids), bool)
    corrupt[np.flatnonzero(here)[_sample_patients(keys[here], settings.robustness_images)]] = True
    of_split = [boxes.get(one) if at else None for one, at in zip(ids, here, strict=True)]
    table = rows.select(["image_id", "path", "height", "width"])
    table = table.append_column("boxes", pa.array(of_split, BOX_LIST)).append_column("corrupt", pa.array(corrupt))
    done = run_predictor(bundle, table, ProbePredictor, settings.batch_size, screen, "evaluate")
    logits = np.array([one["logits"] for one in done.answers.values()], np.float64)
    logits = logits.reshape(len(done.answers), len(bundle.card.findings))
    unread = Counter(done.unread.values())
    return ProbeResults(
        match_predictions(rows, snapshot, bundle.card.findings, list(done.answers), logits, unread),
        {one: found["located"] for one, found in done.answers.items() if found["located"]},
        {one: found["corrupted"] for one, found in done.answers.items() if found["corrupted"]},
    )


def report_probes(
    config: Config,
    bundle: Bundle,
    examined: ProbeResults,
    split: LabelledPredictions,
    against: Mapping[str, Comparison] | None,
) -> ProbeReports:
    """What the probes found on a split, in the probabilities of the bundle's calibration."""
    missing: dict[str, str] = {}
    located = _report_localisation(config, bundle, examined, split) if examined.located else None
    if located is None:
        missing["localisation"] = "no image of this split has a box of a finding that the model knows"
    robustness = _report_robustness(config, bundle, examined, split) if examined.corrupted else None
    if robustness is None:
        missing["robustness"] = "not asked for (evaluate.robustness_images=0)"
    return ProbeReports(located, robustness, measure_latency(bundle), against, missing)


def load_boxes(lake: Lake, snapshot: Snapshot, findings: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """image_id -> its boxes of these findings."""
    boxes: dict[str, list[dict[str, Any]]] = {}
    for row in lake.gold(snapshot, BOXES).to_pylist():
        if row["finding"] in findings:
            boxes.setdefault(row.pop("image_id"), []).append(row)
    return boxes


def _report_localisation(
    config: Config, bundle: Bundle, examined: ProbeResults, split: LabelledPredictions
) -> LocalisationReport:
    """Grad-CAM against gold/boxes."""
    probabilities, patients = bundle.calibration.apply(split.logits), split.patients
    place = {image_id: at for at, image_id in enumerate(split.column("image_id"))}
    findings: list[str] = []
    owners: list[str] = []
    drawn: list[bool] = []
    located: dict[str, list[BoxMatch]] = {name: [] for name in MAPS}
    for image_id, cases in sorted(examined.located.items()):
        for case in cases:
            located[case["maps"]].append(BoxMatch(case["hit"], case["iou"], case["iobb"]))
            if case["maps"] != MAPS[0]:
                continue
            probability = probabilities[place[image_id], bundle.card.findings.index(case["finding"])]
            findings.append(case["finding"])
            owners.append(patients[place[image_id]])
            drawn.append(is_shown(probability, bundle.card.thresholds[case["finding"]]))
    settings = config.evaluate
    grid = forward(bundle.network, np.zeros((1, bundle.card.size, bundle.card.size), np.uint8))[1].shape[-1]
    return localisation(located, findings, owners, drawn, HEATMAP_METHOD, grid, settings.resamples, settings.seed)


def _report_robustness(
    config: Config, bundle: Bundle, examined: ProbeResults, split: LabelledPredictions
) -> RobustnessReport:
    """What each corruption costs."""
    kept = split.chosen(np.flatnonzero([one in examined.corrupted for one in split.column("image_id")]))
    logits = np.array([examined.corrupted[one] for one in kept.column("image_id")], np.float64)
    calibrated = {
        f"{name} {severity}": bundle.calibration.apply(logits[:, at]) for at, (name, severity) in enumerate(CONDITIONS)
    }
    clean = bundle.calibration.apply(kept.logits)
    settings = config.evaluate
    compared = compare(kept.targets, clean, calibrated, kept.patients, settings.resamples, settings.seed)
    return RobustnessReport(len(kept.targets), dict(zip(CONDITIONS, compared.values(), strict=True)))


def _sample_patients(patients: NDArray[np.str_], images: int) -> NDArray[np.intp]:
    """Places of all images of patients drawn by a hash of their key, until there are enough images; 0: none."""
    if images == 0:
        return np.zeros(0, np.intp)
    drawn = np.array([zlib.crc32(key.encode()) for key in patients])
    order = np.lexsort((patients, drawn))
    if images >= len(order):
        return np.sort(order)
    last = patients[order[images - 1]]
    end = images + int((patients[order[images:]] == last).sum())
    return np.sort(order[:end])
