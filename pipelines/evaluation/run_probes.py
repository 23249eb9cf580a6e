"""Runs a network and its probes on Ray, and turns their results into reports."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.evaluation.evidence import RobustnessReport
from chestai.imaging.heatmap import is_shown
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES
from chestai.lake.snapshot import Snapshot
from chestai.metrics.comparison import compare_auroc
from chestai.metrics.localisation import BoxedCases, BoxMatch, LocalisationReport, measure_localisation
from chestai.model.bundle import Bundle, forward
from chestai.model.pretrained.loading import find_imagenet
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.measure import ProbeReports
from pipelines.evaluation.probes import (
    BOX_LIST,
    CONDITIONS,
    IMAGENET_BACKBONE,
    MAPS,
    ProbePredictor,
    measure_latency,
)
from pipelines.evaluation.retrieval import LIBRARY_SPLIT, report_retrieval
from pipelines.inference.engine import run_predictor
from pipelines.inference.labelled_predictions import (
    LabelledPredictions,
    find_patients,
    load_usable_rows,
    match_predictions,
)

HEATMAP_METHOD = "Grad-CAM in closed form: the head is linear over pooled features"


@dataclass(frozen=True)
class ProbeResults:
    """A network's predictions for some splits, and the probes of one of them.

    box_matches: image_id -> for each boxed finding and kind of map a dict of finding, maps, hit, iou, iobb.
    corrupted_logits: image_id -> logits under each of `CONDITIONS`.
    embeddings: Name of a network -> image_id -> its embedding, of the images that search is measured with.
    """

    predictions: LabelledPredictions
    box_matches: Mapping[str, list[dict[str, Any]]]
    corrupted_logits: Mapping[str, list[list[float]]]
    embeddings: Mapping[str, Mapping[str, bytes]]


def run_probes(run: EvaluationRun, bundle: Bundle, other_splits: Sequence[str]) -> ProbeResults:
    """Predict the evaluated split and the others in one pass, and probe images of the evaluated split."""
    settings, findings = run.config.evaluate, bundle.card.findings
    rows = load_usable_rows(run.lake, run.snapshot, {run.split, *other_splits})
    table = _add_probe_columns(rows, run, findings)
    imagenet = find_imagenet(IMAGENET_BACKBONE, bundle.card.size) if settings.retrieval_images else None
    predictor = partial(ProbePredictor, imagenet=imagenet)
    results = run_predictor(bundle, table, predictor, settings.batch_size, run.screen, "evaluate")
    outputs = results.outputs
    logits = np.array([output["logits"] for output in outputs.values()], np.float64)
    logits = logits.reshape(len(outputs), len(findings))
    unread = Counter(results.unread.values())
    return ProbeResults(
        match_predictions(rows, run.snapshot, findings, list(outputs), logits, unread),
        {image_id: output["located"] for image_id, output in outputs.items() if output["located"]},
        {image_id: output["corrupted"] for image_id, output in outputs.items() if output["corrupted"]},
        _collect_embeddings(outputs),
    )


def report_probes(
    run: EvaluationRun, bundle: Bundle, results: ProbeResults, evaluated: LabelledPredictions
) -> ProbeReports:
    """Report the probes of a split, with probabilities from the bundle's calibration."""
    missing: dict[str, str] = {}
    boxes = _report_localisation(run, bundle, results, evaluated) if results.box_matches else None
    if boxes is None:
        missing["localisation"] = "no image of this split has a box for a finding that the model knows"
    robustness = _report_robustness(run, bundle, results, evaluated) if results.corrupted_logits else None
    if robustness is None:
        missing["robustness"] = "switched off (evaluate.robustness_images=0)"
    retrieval = report_retrieval(run, results.predictions, results.embeddings)
    if retrieval is None:
        missing["retrieval"] = (
            "there are no val images to search among"
            if run.config.evaluate.retrieval_images
            else "switched off (evaluate.retrieval_images=0)"
        )
    return ProbeReports(boxes, robustness, retrieval, measure_latency(bundle), missing)


def _collect_embeddings(outputs: Mapping[str, Any]) -> dict[str, dict[str, bytes]]:
    embeddings: dict[str, dict[str, bytes]] = {}
    for image_id, output in outputs.items():
        for found in output["embeddings"] or ():
            embeddings.setdefault(found["network"], {})[image_id] = found["vector"]
    return embeddings


def load_boxes(lake: Lake, snapshot: Snapshot, findings: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """image_id -> its boxes of these findings."""
    boxes: dict[str, list[dict[str, Any]]] = {}
    for row in lake.read_gold(snapshot, BOXES).to_pylist():
        if row["finding"] in findings:
            boxes.setdefault(row.pop("image_id"), []).append(row)
    return boxes


def _add_probe_columns(rows: pa.Table, run: EvaluationRun, findings: tuple[str, ...]) -> pa.Table:
    """The columns that `ProbePredictor` reads; `boxes` and `corrupt` are only set in the evaluated split."""
    boxes, settings = load_boxes(run.lake, run.snapshot, findings), run.config.evaluate
    splits, patients = np.array(rows["split"].to_pylist(), dtype=str), find_patients(rows)
    evaluated = np.equal(splits, run.split)
    corrupt, embed = np.zeros(rows.num_rows, bool), np.zeros(rows.num_rows, bool)
    corrupt[_sample_patients(patients, evaluated, settings.robustness_images)] = True
    for split in (run.split, LIBRARY_SPLIT):
        embed[_sample_patients(patients, np.equal(splits, split), settings.retrieval_images)] = True
    boxes_of_rows = [
        boxes.get(image_id) if probed else None
        for image_id, probed in zip(rows["image_id"].to_pylist(), evaluated, strict=True)
    ]
    table = rows.select(["image_id", "path", "height", "width"])
    table = table.append_column("boxes", pa.array(boxes_of_rows, BOX_LIST))
    return table.append_column("corrupt", pa.array(corrupt)).append_column("embed", pa.array(embed))


def _sample_patients(patients: NDArray[np.str_], among: NDArray[np.bool_], images: int) -> NDArray[np.intp]:
    """Indices of all images of a sample of patients, drawn by a hash of their key until there are enough images.

    Args:
        patients: (N,) keys.
        among: (N,), of which images to draw.
    """
    rows = np.flatnonzero(among)
    if images == 0 or not len(rows):
        return rows[:0]
    hashes = np.array([zlib.crc32(key.encode()) for key in patients[rows]])
    order = rows[np.lexsort((patients[rows], hashes))]
    last = patients[order[min(images, len(order)) - 1]]
    end = images + int((patients[order[images:]] == last).sum())
    return np.sort(order[:end])


def _report_localisation(
    run: EvaluationRun, bundle: Bundle, results: ProbeResults, evaluated: LabelledPredictions
) -> LocalisationReport:
    """Grad-CAM against gold/boxes."""
    probabilities, patients = bundle.calibration.apply(evaluated.logits), evaluated.patients
    index_of = {image_id: index for index, image_id in enumerate(evaluated.column("image_id"))}
    findings: list[str] = []
    patient_of_case: list[str] = []
    shown: list[bool] = []
    matches: dict[str, list[BoxMatch]] = {name: [] for name in MAPS}
    for image_id, cases in sorted(results.box_matches.items()):
        for case in cases:
            matches[case["maps"]].append(BoxMatch(case["hit"], case["iou"], case["iobb"]))
            if case["maps"] != MAPS[0]:
                continue
            finding, index = case["finding"], index_of[image_id]
            probability = probabilities[index, bundle.card.findings.index(finding)]
            findings.append(finding)
            patient_of_case.append(patients[index])
            shown.append(is_shown(probability, bundle.card.thresholds[finding]))
    grid = forward(bundle.network, np.zeros((1, bundle.card.size, bundle.card.size), np.uint8))[1].shape[-1]
    boxed = BoxedCases(matches, findings, patient_of_case, shown)
    return measure_localisation(boxed, HEATMAP_METHOD, grid, run.config.evaluate.bootstrap())


def _report_robustness(
    run: EvaluationRun, bundle: Bundle, results: ProbeResults, evaluated: LabelledPredictions
) -> RobustnessReport:
    """Macro-AUROC under each corruption against the same images as they are."""
    corrupted = [image_id in results.corrupted_logits for image_id in evaluated.column("image_id")]
    sample = evaluated.take(np.flatnonzero(corrupted))
    logits = np.array([results.corrupted_logits[image_id] for image_id in sample.column("image_id")], np.float64)
    probabilities = {
        f"{name} {severity}": bundle.calibration.apply(logits[:, condition])
        for condition, (name, severity) in enumerate(CONDITIONS)
    }
    clean = bundle.calibration.apply(sample.logits)
    settings = run.config.evaluate
    drops = compare_auroc(sample.targets, clean, probabilities, sample.patients, settings.bootstrap())
    return RobustnessReport(len(sample.targets), dict(zip(CONDITIONS, drops.values(), strict=True)))
