"""Putting a network through its probes on Ray, and what they found in numbers."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.bundle import Bundle, forward
from chestai.evidence import RobustnessReport
from chestai.lake import BOXES, Lake, Snapshot
from chestai.metrics.comparison import Comparison, compare
from chestai.metrics.localisation import LocalisationReport, Located, localisation
from chestai.screen import Screen
from chestai.sections import Config
from pipelines.answers import Answers
from pipelines.inference import answered
from pipelines.measuring import Probed
from pipelines.probes import CONDITIONS, MAPS, Corrupted, Maps, latency

METHOD = "Grad-CAM in closed form: the head is linear over pooled features"


def probe(
    config: Config,
    screen: Screen,
    lake: Lake,
    snapshot: Snapshot,
    bundle: Bundle,
    split: Answers,
    against: Mapping[str, Comparison] | None,
) -> Probed:
    """Everything that only a network can be asked, on the images of one split that it has answered."""
    missing: dict[str, str] = {}
    located = _localisation(config, screen, lake, snapshot, bundle, split)
    if located is None:
        missing["localisation"] = "no image of this split has a box of a finding that the model knows"
    robustness = _robustness(config, screen, bundle, split) if config.evaluate.robustness_images else None
    if robustness is None:
        missing["robustness"] = "not asked for (evaluate.robustness_images=0)"
    return Probed(located, robustness, latency(bundle), against, missing)


def _localisation(
    config: Config, screen: Screen, lake: Lake, snapshot: Snapshot, bundle: Bundle, split: Answers
) -> LocalisationReport | None:
    """Grad-CAM against gold/boxes; None without a box."""
    boxes = boxed(lake, snapshot, bundle.card.findings)
    images = split.column("image_id")
    rows = split.rows.append_column("boxes", pa.array([boxes.get(one) for one in images]))
    chosen = np.flatnonzero([one in boxes for one in images])
    if not chosen.size:
        return None
    table = rows.select(["image_id", "path", "height", "width", "boxes"]).take(chosen)
    maps = answered(bundle, table, Maps, config.evaluate.batch_size, screen, "maps").answers

    probabilities, patients = bundle.calibration.apply(split.logits), split.patients
    place = {image_id: at for at, image_id in enumerate(images)}
    findings: list[str] = []
    owners: list[str] = []
    shown: list[bool] = []
    located: dict[str, list[Located]] = {name: [] for name in MAPS}
    for image_id in sorted(maps):
        for case in maps[image_id]:
            located[case["maps"]].append(Located(case["hit"], case["iou"], case["iobb"]))
            if case["maps"] != MAPS[0]:
                continue
            threshold = bundle.card.thresholds[case["finding"]]
            probability = probabilities[place[image_id], bundle.card.findings.index(case["finding"])]
            findings.append(case["finding"])
            owners.append(patients[place[image_id]])
            shown.append(threshold is not None and bool(probability >= threshold))
    settings = config.evaluate
    grid = forward(bundle.network, np.zeros((1, bundle.card.size, bundle.card.size), np.uint8))[1].shape[-1]
    return localisation(located, findings, owners, shown, METHOD, grid, settings.resamples, settings.seed)


def boxed(lake: Lake, snapshot: Snapshot, findings: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """image_id -> its boxes of these findings."""
    boxes: dict[str, list[dict[str, Any]]] = {}
    for row in lake.gold(snapshot, BOXES).to_pylist():
        if row["finding"] in findings:
            boxes.setdefault(row.pop("image_id"), []).append(row)
    return boxes


def _robustness(config: Config, screen: Screen, bundle: Bundle, split: Answers) -> RobustnessReport:
    """What each corruption costs, on whole patients that make up about the number of images asked for."""
    sample = split.chosen(_patients_of(split.patients, config.evaluate.robustness_images))
    table = sample.rows.select(["image_id", "path"])
    answers = answered(bundle, table, Corrupted, config.evaluate.batch_size, screen, "corrupt").answers
    kept = sample.chosen(np.flatnonzero([one in answers for one in sample.column("image_id")]))
    logits = np.array([answers[one] for one in kept.column("image_id")], np.float64)
    calibrated = {
        f"{name} {severity}": bundle.calibration.apply(logits[:, at]) for at, (name, severity) in enumerate(CONDITIONS)
    }
    clean = bundle.calibration.apply(kept.logits)
    settings = config.evaluate
    compared = compare(kept.targets, clean, calibrated, kept.patients, settings.resamples, settings.seed)
    return RobustnessReport(len(kept.targets), dict(zip(CONDITIONS, compared.values(), strict=True)))


def _patients_of(patients: NDArray[np.str_], images: int) -> NDArray[np.intp]:
    """Places of all images of patients drawn by a hash of their key, until there are enough images."""
    drawn = np.array([zlib.crc32(key.encode()) for key in patients])
    order = np.lexsort((patients, drawn))
    if images >= len(order):
        return np.sort(order)
    last = patients[order[images - 1]]
    end = images + int((patients[order[images:]] == last).sum())
    return np.sort(order[:end])
