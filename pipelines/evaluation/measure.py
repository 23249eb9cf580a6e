"""From answers to evidence: every measurement that needs no network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chestai import calibration
from chestai.calibration import AnyCalibration
from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.evaluation.evidence import EvaluatedModel, EvaluationData, Evidence, Latency, RobustnessReport
from chestai.lake.snapshot import Snapshot
from chestai.metrics.comparison import Comparison
from chestai.metrics.localisation import LocalisationReport
from chestai.metrics.masking import prevalence
from chestai.metrics.operating_points import POINTS, at_points, choose
from chestai.metrics.reliability import CalibrationReport, measure_calibration
from chestai.metrics.report import evaluate
from chestai.metrics.subgroups import SubgroupReport, subgroups
from chestai.model.calibrate import shift_to_prevalence
from chestai.triage import queue_simulation
from chestai.triage.metrics import measure_urgency, urgent_truth
from chestai.triage.queue_simulation import QueueReport
from chestai.triage.rule import TriageRule
from pipelines.inference.labelled_predictions import LabelledPredictions

SHIFTED = "shifted"


@dataclass(frozen=True)
class EvaluationInput:
    """What was measured and how it answers.

    in_force: the calibration that its probabilities come from; method `none` for those of a file. pos_weight: (F,) by
    which the training loss weighed positives up. rule: None where no finding of it is weighted. decision: (F,) the
    operating point in force, NaN for none. val and split: the answers, val empty where there are none.
    """

    subject: EvaluatedModel
    in_force: AnyCalibration
    pos_weight: NDArray[np.float64]
    rule: TriageRule | None
    decision: NDArray[np.float64]
    val: LabelledPredictions
    split: LabelledPredictions

    def probabilities(self) -> NDArray[np.float64]:
        """(N, F) of the split, as the model or the file gives them."""
        return self.in_force.apply(self.split.logits)


@dataclass(frozen=True)
class ProbeReports:
    """What only a network can be asked; None with a reason in `missing`."""

    localisation: LocalisationReport | None
    robustness: RobustnessReport | None
    latency: Latency | None
    against: Mapping[str, Comparison] | None
    missing: Mapping[str, str]


def measure_evidence(
    config: Config, snapshot: Snapshot, measured: EvaluationInput, probed: ProbeReports, screen: Screen
) -> Evidence:
    """Measure the split's answers and put all that is known together."""
    split, findings, missing = measured.split, measured.split.findings, dict(probed.missing)
    whole = (split.targets, measured.probabilities(), split.patients)
    draws = {"resamples": config.evaluate.resamples, "seed": config.evaluate.seed}
    with screen.progress("measure", 5, "parts") as progress:
        report = evaluate(*whole, findings, **draws)
        progress.update(1, "operating points")
        points = at_points(*whole, findings, _choose_thresholds(measured), **draws)
        progress.update(2, "calibration")
        calibrations = _measure_calibrations(config, measured)
        progress.update(3, "subgroups")
        groups = _measure_subgroups(config, measured)
        progress.update(4, "triage")
        triage = queue = None
        if measured.rule is not None:
            triage = measure_urgency(*whole, findings, measured.rule, **draws)
            queue = _simulate_queue(config, measured.rule, split, measured.probabilities())
        progress.update(5)
    if not len(measured.val.targets):
        missing["points"] = "there are no answers for val images, on which operating points are chosen"
    if triage is None:
        missing["urgency"] = missing["queue"] = "the triage rule weighs none of these findings"
    elif queue is None:
        missing["queue"] = "the split has no urgent study, or no other"
    return Evidence(
        subject=measured.subject,
        data=_describe_data(snapshot, measured),
        report=report,
        points=points,
        calibration=calibrations,
        in_force=measured.in_force.method,
        urgency=triage,
        queue=queue,
        subgroups=groups,
        localisation=probed.localisation,
        robustness=probed.robustness,
        latency=probed.latency,
        missing=missing,
        against=None if probed.against is None else dict(probed.against),
    )


def _choose_thresholds(measured: EvaluationInput) -> dict[str, list[float]]:
    """Operating point -> a threshold for each finding, chosen on val."""
    targets, probabilities = measured.val.targets, measured.in_force.apply(measured.val.logits)
    chosen = [choose(targets[:, at], probabilities[:, at]) for at in range(targets.shape[1])]
    return {point: [one[point] for one in chosen] for point in POINTS}


def _measure_subgroups(config: Config, measured: EvaluationInput) -> SubgroupReport:
    settings, split = config.evaluate, measured.split
    return subgroups(
        split.targets,
        measured.probabilities(),
        split.patients,
        measured.decision.tolist(),
        split.findings,
        np.array(split.column("age_years"), np.float64),
        split.column("sex"),
        split.column("view"),
        settings.subgroup_images,
        settings.resamples,
        settings.seed,
    )


def _describe_data(snapshot: Snapshot, measured: EvaluationInput) -> EvaluationData:
    split, val = measured.split, measured.val
    shares = {
        name: {
            finding: float(share)
            for finding, share in zip(answers.findings, prevalence(answers.targets), strict=True)
            if np.isfinite(share)
        }
        for name, answers in (("val", val), ("split", split))
    }
    return EvaluationData(
        snapshot=snapshot.snapshot_id,
        source=snapshot.source,
        split=split.column("split")[0],
        images=len(split.targets),
        patients=len(np.unique(split.patients)),
        synthetic=snapshot.synthetic,
        val_images=len(val.targets),
        val_prevalence=shares["val"],
        prevalence=shares["split"],
        unread=dict(split.unread),
    )


def _measure_calibrations(config: Config, measured: EvaluationInput) -> tuple[CalibrationReport, ...]:
    """Before, each method fitted on val (the one in force as it is), and moved to the site's prevalence on request."""
    val, split, in_force = measured.val, measured.split, measured.in_force
    kinds: dict[str, AnyCalibration] = {"none": calibration.uncalibrated(len(split.findings))}
    for method in calibration.METHODS if len(val.targets) else ():
        kinds[method] = calibration.fit(val.logits, val.targets, measured.pos_weight, method)
    kinds[in_force.method] = in_force
    asked = config.evaluate.prevalence
    if asked is not None and len(val.targets):
        given = {} if asked == "measured" else asked
        assert isinstance(given, dict)
        named = np.array([given.get(finding, np.nan) for finding in split.findings])
        site = prevalence(split.targets) if asked == "measured" else named
        kinds[SHIFTED] = shift_to_prevalence(in_force, val.targets, site)
    return tuple(
        measure_calibration(name, split.targets, kind.apply(split.logits), split.findings, config.evaluate.seed)
        for name, kind in kinds.items()
    )


def _simulate_queue(
    config: Config, rule: TriageRule, split: LabelledPredictions, probabilities: NDArray[np.float64]
) -> QueueReport | None:
    urgent = urgent_truth(split.targets, split.findings, rule.emergencies)
    known = ~np.isnan(urgent)
    if len(np.unique(urgent[known])) < 2:
        return None
    scores = rule.score(probabilities[known], split.findings)
    return queue_simulation.simulate_queue(scores, urgent[known] == 1, config.queue.scenario())
