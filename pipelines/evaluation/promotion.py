"""The gate in action: the candidate beside the champion on the same images, and what becomes of the alias."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.evaluation.evidence import Evidence
from chestai.evaluation.promotion_gate import CHAMPION as AGAINST
from chestai.evaluation.promotion_gate import GateCheck, failed_checks, run_checks
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.metrics.comparison import Comparison, compare
from chestai.model.registry import CHAMPION, RegisteredModel, Registry
from pipelines.evaluation.leakage import find_leaked_patients
from pipelines.inference.labelled_predictions import LabelledPredictions, predict_labelled


@dataclass(frozen=True)
class ChampionComparison:
    """holder: the champion's version, None without one. compared: as `Evidence.against`. cannot: why not, in words."""

    holder: int | None
    compared: dict[str, Comparison] | None = None
    cannot: str = ""


@dataclass(frozen=True)
class GateVerdict:
    """What the gate said, in one line, and all its checks."""

    said: str
    checks: Sequence[GateCheck]


def compare_with_champion(
    config: Config,
    screen: Screen,
    lake: Lake,
    snapshot: Snapshot,
    registry: Registry,
    candidate: RegisteredModel,
    ours: LabelledPredictions,
) -> ChampionComparison:
    """The candidate and the champion on the same images, by a paired bootstrap of their patients."""
    holder = registry.champion()
    if holder is None or holder == candidate.version:
        return ChampionComparison(holder)
    champion = registry.load(CHAMPION).bundle
    if champion.card.findings != candidate.bundle.card.findings:
        return ChampionComparison(holder, cannot="it answers other findings, so the two cannot be compared")
    split = config.evaluate.split
    seen = find_leaked_patients(champion, lake, snapshot, [split]).num_rows
    if seen:
        return ChampionComparison(
            holder, cannot=f"it was trained on {seen} {split} patients, so the two cannot be compared"
        )
    theirs = predict_labelled(champion, lake, snapshot, [split], config.evaluate.batch_size, screen)
    place = {image_id: at for at, image_id in enumerate(theirs.column("image_id"))}
    both = ours.chosen(np.flatnonzero([one in place for one in ours.column("image_id")]))
    theirs = theirs.chosen(np.array([place[one] for one in both.column("image_id")], np.intp))
    compared = compare(
        both.targets,
        champion.calibration.apply(theirs.logits),
        {AGAINST: candidate.bundle.calibration.apply(both.logits)},
        both.patients,
        config.evaluate.resamples,
        config.evaluate.seed,
    )
    return ChampionComparison(holder, compared)


def apply_gate(
    config: Config, registry: Registry, version: int, evidence: Evidence, rivals: ChampionComparison
) -> GateVerdict:
    """Move `champion` to the version if the gate lets it through, and leave on record what was said."""
    checks = run_checks(evidence, config.gate)
    broken = failed_checks(checks)
    why = "; ".join(f"{check.name}: {check.said}" for check in broken)
    if rivals.holder == version:
        return GateVerdict(f"version {version} is the champion" + (f", but now {why}" if why else ""), checks)
    if rivals.cannot:
        why = "; ".join(filter(None, [f"version {rivals.holder}: {rivals.cannot}", why]))
    elif registry.rolled_back(version):
        why = "; ".join(filter(None, ["it was rolled back by hand", why]))
    registry.note_gate(version, why)
    stays = "there is no champion yet" if rivals.holder is None else f"champion stays version {rivals.holder}"
    if why:
        return GateVerdict(f"{stays}: version {version} is refused, {why}", checks)
    registry.promote(version)
    if rivals.holder is None:
        return GateVerdict(f"version {version} is the first champion: it keeps every limit", checks)
    return GateVerdict(f"version {version} is the new champion: {checks[0].said}", checks)
