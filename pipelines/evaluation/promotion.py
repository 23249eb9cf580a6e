"""The promotion gate: compares the candidate with the champion on the same images and moves the alias."""

from collections.abc import Sequence
from dataclasses import dataclass

from chestai.evaluation.promotion_gate import CHAMPION_COMPARISON, GateCheck, select_failed
from chestai.metrics.comparison import Comparison, compare_auroc
from chestai.model.registry import CHAMPION, RegisteredModel, Registry
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.leakage import find_leaked_patients
from pipelines.inference.labelled_predictions import LabelledPredictions, align, predict_labelled


@dataclass(frozen=True)
class ChampionComparison:
    """The candidate against the champion.

    champion: its version, None if there is no champion. comparisons: as `Evidence.comparisons`. obstacle: why the two
    cannot be compared; empty if they can.
    """

    champion: int | None
    comparisons: dict[str, Comparison] | None = None
    obstacle: str = ""


@dataclass(frozen=True)
class GateVerdict:
    """The gate's verdict in one line, and all its checks."""

    summary: str
    checks: Sequence[GateCheck] = ()


def compare_with_champion(
    run: EvaluationRun, candidate: RegisteredModel, predictions: LabelledPredictions
) -> ChampionComparison:
    """Compare the candidate with the champion on the images of its predictions, by a paired bootstrap of patients."""
    version = run.registry.champion()
    if version is None or version == candidate.version:
        return ChampionComparison(version)
    champion = run.registry.load(CHAMPION).bundle
    if champion.card.findings != candidate.bundle.card.findings:
        return ChampionComparison(version, obstacle="it predicts other findings, so the two cannot be compared")
    leaked = find_leaked_patients(champion, run.lake, run.snapshot, [run.split]).num_rows
    if leaked:
        obstacle = f"it was trained on {leaked} {run.split} patients, so the two cannot be compared"
        return ChampionComparison(version, obstacle=obstacle)
    settings = run.config.evaluate
    theirs = predict_labelled(champion, run.lake, run.snapshot, [run.split], settings.batch_size, run.screen)
    ours, theirs = align(predictions, theirs)
    comparisons = compare_auroc(
        ours.targets,
        champion.calibration.apply(theirs.logits),
        {CHAMPION_COMPARISON: candidate.bundle.calibration.apply(ours.logits)},
        ours.patients,
        settings.bootstrap(),
    )
    return ChampionComparison(version, comparisons)


def apply_gate(
    registry: Registry, version: int, checks: tuple[GateCheck, ...], comparison: ChampionComparison
) -> GateVerdict:
    """Promote the version to `champion` if no check failed, and record the reasons at the version if one did."""
    reasons = [f"{check.name}: {check.message}" for check in select_failed(checks)]
    champion = comparison.champion
    if champion == version:
        now = f", but now {'; '.join(reasons)}" if reasons else ""
        return GateVerdict(f"version {version} is the champion{now}", checks)
    if comparison.obstacle:
        reasons.insert(0, f"version {champion}: {comparison.obstacle}")
    elif registry.rolled_back(version):
        reasons.insert(0, "it was rolled back by hand")
    refusal = "; ".join(reasons)
    registry.note_gate(version, refusal)
    if refusal:
        current = "there is no champion yet" if champion is None else f"champion stays version {champion}"
        return GateVerdict(f"{current}: version {version} is refused, {refusal}", checks)
    registry.promote(version)
    if champion is None:
        return GateVerdict(f"version {version} is the first champion: it meets every limit", checks)
    return GateVerdict(f"version {version} is the new champion: {checks[0].message}", checks)
