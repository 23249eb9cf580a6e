"""Everything that is measured from predictions alone, without the network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chestai import calibration
from chestai.calibration import AnyCalibration, Confidence
from chestai.evaluation.evidence import EvaluatedModel, EvaluationData, Evidence, Latency, RobustnessReport
from chestai.metrics.comparison import Comparison
from chestai.metrics.coverage import CoverageReport, measure_coverage
from chestai.metrics.localisation import LocalisationReport
from chestai.metrics.masking import compute_prevalence
from chestai.metrics.operating_points import POINTS, choose_thresholds, measure_operating_points
from chestai.metrics.predictions import Predictions
from chestai.metrics.reliability import CalibrationReport, measure_calibration
from chestai.metrics.report import measure_performance
from chestai.metrics.retrieval import RetrievalReport
from chestai.metrics.subgroups import ImageAttributes, SubgroupReport, measure_subgroups
from chestai.model.calibrate import shift_to_prevalence
from chestai.triage import queue_simulation
from chestai.triage.metrics import UrgencyReport, derive_urgent_labels, measure_urgency
from chestai.triage.queue_simulation import QueueReport
from chestai.triage.rule import TriageRule
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.retrieval import measure_text_queries
from pipelines.evaluation.second_labels import measure_by_second_labels
from pipelines.inference.labelled_predictions import LabelledPredictions

SHIFTED = "shifted"
PROBED = ("localisation", "robustness", "retrieval", "latency")
NO_VAL = "there are no predictions for val images, on which {}"
NO_CONFIDENCE = "the bundle is of an earlier release; `python -m pipelines.derive` makes a version that has it"


@dataclass(frozen=True)
class EvaluationInput:
    """A model's predictions and how to read them.

    calibration: turns its logits into probabilities; method `none` for predictions from a file. pos_weight: (F,)
    weights of positives in the training loss. triage_rule: None if it weighs none of the findings.
    operating_points: (F,) thresholds in use, NaN for none. val: to choose thresholds and calibrations on, may be empty.
    evaluated: the split that is measured. confidence: fitted on val; None in bundles of earlier releases and for
    predictions without val.
    """

    subject: EvaluatedModel
    calibration: AnyCalibration
    pos_weight: NDArray[np.float64]
    triage_rule: TriageRule | None
    operating_points: NDArray[np.float64]
    val: LabelledPredictions
    evaluated: LabelledPredictions
    confidence: Confidence | None

    def probabilities(self) -> NDArray[np.float64]:
        """(N, F) calibrated probabilities of the evaluated split."""
        return self.calibration.apply(self.evaluated.logits)

    def predictions(self) -> Predictions:
        """The calibrated predictions of the evaluated split."""
        evaluated = self.evaluated
        return Predictions.of(evaluated.targets, self.probabilities(), evaluated.patients, evaluated.findings)


@dataclass(frozen=True)
class ProbeReports:
    """What can only be measured with the network; None where `missing` gives the reason."""

    localisation: LocalisationReport | None
    robustness: RobustnessReport | None
    retrieval: RetrievalReport | None
    latency: Latency | None
    missing: Mapping[str, str]


def measure_evidence(
    run: EvaluationRun,
    inputs: EvaluationInput,
    probes: ProbeReports,
    comparisons: Mapping[str, Comparison] | None = None,
) -> Evidence:
    """Measure the predictions and collect all evidence. comparisons: as `Evidence.comparisons`."""
    rule, predictions, bootstrap = inputs.triage_rule, inputs.predictions(), run.config.evaluate.bootstrap()
    with run.screen.progress("measure", 7, "parts") as progress:
        performance = measure_performance(predictions, bootstrap)
        progress.update(1, "operating points")
        points = measure_operating_points(predictions, _choose_thresholds(inputs), bootstrap)
        progress.update(2, "calibration")
        calibrations = _measure_calibrations(run, inputs)
        progress.update(3, "confidence")
        own = inputs.confidence
        coverage = None if own is None else measure_coverage(predictions, own, bootstrap)
        progress.update(4, "subgroups")
        groups = _measure_subgroups(run, inputs, predictions)
        progress.update(5, "triage")
        urgency = None if rule is None else measure_urgency(predictions, rule, bootstrap)
        queue = None if rule is None else _simulate_queue(run, rule, inputs)
        progress.update(6, "text search")
        text_search = measure_text_queries(predictions, bootstrap)
        progress.update(7)
    return Evidence(
        subject=inputs.subject,
        data=_describe_data(run, inputs),
        performance=performance,
        operating_points=points,
        calibration=calibrations,
        calibration_method=inputs.calibration.method,
        urgency=urgency,
        queue=queue,
        subgroups=groups,
        localisation=probes.localisation,
        robustness=probes.robustness,
        latency=probes.latency,
        missing=dict(probes.missing) | _explain_missing(inputs, coverage, urgency, queue),
        comparisons=None if comparisons is None else dict(comparisons),
        confidence=coverage,
        retrieval=probes.retrieval,
        text_search=text_search,
        second_labels=measure_by_second_labels(run, predictions, inputs.evaluated.column("image_id")),
    )


def _explain_missing(
    inputs: EvaluationInput, coverage: CoverageReport | None, urgency: UrgencyReport | None, queue: QueueReport | None
) -> dict[str, str]:
    """Field of the evidence -> why it was not measured."""
    missing: dict[str, str] = {}
    if coverage is None:
        missing["confidence"] = NO_CONFIDENCE if len(inputs.val.targets) else NO_VAL.format("confidence is fitted")
    if not len(inputs.val.targets):
        missing["operating_points"] = NO_VAL.format("operating points are chosen")
    if urgency is None:
        missing["urgency"] = missing["queue"] = "the triage rule weighs none of these findings"
    elif queue is None:
        missing["queue"] = "the split lacks urgent studies or other studies"
    return missing


def _choose_thresholds(inputs: EvaluationInput) -> dict[str, list[float]]:
    """Operating point -> a threshold for each finding, chosen on val."""
    targets, probabilities = inputs.val.targets, inputs.calibration.apply(inputs.val.logits)
    chosen = [choose_thresholds(targets[:, column], probabilities[:, column]) for column in range(targets.shape[1])]
    return {point: [thresholds[point] for thresholds in chosen] for point in POINTS}


def _measure_calibrations(run: EvaluationRun, inputs: EvaluationInput) -> tuple[CalibrationReport, ...]:
    """No calibration, each method fitted on val (the model's own as it is), and on request the own one shifted."""
    settings, val, evaluated = run.config.evaluate, inputs.val, inputs.evaluated
    calibrations: dict[str, AnyCalibration] = {"none": calibration.uncalibrated(len(evaluated.findings))}
    for method in calibration.METHODS if len(val.targets) else ():
        calibrations[method] = calibration.fit(val.logits, val.targets, inputs.pos_weight, method)
    calibrations[inputs.calibration.method] = inputs.calibration
    if settings.prevalence is not None and len(val.targets):
        if isinstance(settings.prevalence, dict):
            site = np.array([settings.prevalence.get(finding, np.nan) for finding in evaluated.findings])
        else:  # "measured"
            site = compute_prevalence(evaluated.targets)
        calibrations[SHIFTED] = shift_to_prevalence(inputs.calibration, val.targets, site)
    return tuple(
        measure_calibration(name, evaluated.targets, fitted.apply(evaluated.logits), evaluated.findings, settings.seed)
        for name, fitted in calibrations.items()
    )


def _measure_subgroups(run: EvaluationRun, inputs: EvaluationInput, predictions: Predictions) -> SubgroupReport:
    settings, evaluated = run.config.evaluate, inputs.evaluated
    attributes = ImageAttributes(
        age_years=np.array(evaluated.column("age_years"), np.float64),
        sex=evaluated.column("sex"),
        view=evaluated.column("view"),
    )
    return measure_subgroups(
        predictions, inputs.operating_points.tolist(), attributes, settings.bootstrap(), settings.subgroup_images
    )


def _simulate_queue(run: EvaluationRun, rule: TriageRule, inputs: EvaluationInput) -> QueueReport | None:
    """None unless there are both urgent and other studies."""
    evaluated = inputs.evaluated
    urgent = derive_urgent_labels(evaluated.targets, evaluated.findings, rule.emergencies)
    known = ~np.isnan(urgent)
    if len(np.unique(urgent[known])) < 2:
        return None
    scores = rule.score(inputs.probabilities()[known], evaluated.findings)
    return queue_simulation.simulate_queue(scores, urgent[known] == 1, run.config.queue.to_scenario())


def _describe_data(run: EvaluationRun, inputs: EvaluationInput) -> EvaluationData:
    evaluated, val = inputs.evaluated, inputs.val
    return EvaluationData(
        snapshot=run.snapshot.snapshot_id,
        source=run.snapshot.source,
        split=evaluated.column("split")[0],
        images=len(evaluated.targets),
        patients=len(np.unique(evaluated.patients)),
        synthetic=run.snapshot.synthetic,
        val_images=len(val.targets),
        val_prevalence=_compute_prevalence(val),
        prevalence=_compute_prevalence(evaluated),
        unreadable=dict(evaluated.unread),
        guesses=run.snapshot.guesses,
        warnings=run.snapshot.warnings,
    )


def _compute_prevalence(predictions: LabelledPredictions) -> dict[str, float]:
    shares = zip(predictions.findings, compute_prevalence(predictions.targets), strict=True)
    return {finding: float(share) for finding, share in shares if np.isfinite(share)}
