"""The promotion gate: a model becomes `champion` if it beats the current champion and keeps every limit."""

from dataclasses import dataclass

import numpy as np

from chestai.config.schema import Gate
from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate

CHAMPION_COMPARISON = "champion"  # key of `Evidence.comparisons`
# Crossings are reported, not judged: among many small groups the widest gap is wide by chance.
AXES = ("age", "sex", "view")
# Cells per side that a map needs to point at a lesion. On the demo's phantoms DenseNet-121 points into 0.37 of boxes
# with 3 x 3 cells (96 pixels) and into 0.69 with 5 x 5 (160 pixels); the centre prior into 0.33.
MIN_GRID = 5


@dataclass(frozen=True)
class GateCheck:
    """One check of the gate. `passed` is None if it could not be judged, which does not block a model."""

    name: str
    passed: bool | None
    message: str


def run_checks(evidence: Evidence, limits: Gate) -> tuple[GateCheck, ...]:
    """Run all checks; limits that are None are skipped."""
    checks = [
        _check_gain(evidence, limits.min_gain),
        _check_calibration(evidence, limits.max_ece),
        _check_gap(evidence, "auroc", limits.max_auroc_gap),
        _check_gap(evidence, "fnr", limits.max_fnr_gap),
        _check_localisation(evidence, limits.min_pointing_gain),
        _check_latency(evidence, limits.max_latency_ms),
    ]
    return tuple(check for check in checks if check is not None)


def select_failed(checks: tuple[GateCheck, ...]) -> list[GateCheck]:
    """Select the checks that block the model."""
    return [check for check in checks if check.passed is False]


def _check_gain(evidence: Evidence, least: float) -> GateCheck:
    compared = (evidence.comparisons or {}).get(CHAMPION_COMPARISON)
    if compared is None:
        return GateCheck("better", None, "there is no champion to beat: judged by the limits alone")
    message = f"macro-AUROC {compared.other:.4f}, champion {compared.baseline:.4f}, {_format_gain(compared.difference)}"
    passed = bool(compared.difference.low > least)  # False if the interval is undefined
    needs = f" (its lower end must lie above gate.min_gain={least:g})"
    return GateCheck("better", passed, message + ("" if passed else needs))


def _check_calibration(evidence: Evidence, most: float | None) -> GateCheck | None:
    if most is None:
        return None
    found = next((report for report in evidence.calibration if report.method == evidence.calibration_method), None)
    if found is None or np.isnan(found.macro_ece):
        return GateCheck("calibration", None, "no calibration error could be measured")
    excess = found.macro_ece - found.macro_floor
    message = f"ECE {found.macro_ece:.3f}, {excess:.3f} above chance ({found.macro_floor:.3f})"
    return _judge_limit("calibration", bool(excess <= most), message, f"gate.max_ece={most:g}")


def _check_gap(evidence: Evidence, metric: str, most: float | None) -> GateCheck | None:
    if most is None:
        return None
    name, key = f"subgroup gap in {metric.upper()}", f"gate.max_{metric}_gap={most:g}"
    every = evidence.subgroups.gaps if evidence.subgroups else ()
    gaps = [gap for gap in every if gap.metric == metric and gap.axis in AXES and not np.isnan(gap.gap.low)]
    if not gaps:
        return GateCheck(name, None, "no two subgroups are large enough")
    worst = max(gaps, key=lambda gap: gap.gap.low)
    message = f"{worst.axis}: {worst.worse} against {worst.better}, gap {_format_interval(worst.gap)}"
    return _judge_limit(name, bool(worst.gap.low <= most), message, key)


def _check_localisation(evidence: Evidence, least: float | None) -> GateCheck | None:
    if least is None:
        return None
    found = evidence.localisation
    if found is None:
        return GateCheck("localisation", None, evidence.missing.get("localisation", "no boxes in this split"))
    if found.grid < MIN_GRID:
        return GateCheck("localisation", None, f"maps of {found.grid} x {found.grid} cells are too coarse to point")
    model, *controls = found.all_cases
    control = max(controls, key=lambda maps: maps.pointing.value)
    gain, pointing = found.gains[control.kind], (model.pointing.value, control.pointing.value)
    message = f"pointing {pointing[0]:.3f}, {control.kind} {pointing[1]:.3f} ({found.cases} boxes)"
    if np.isnan(gain.high):
        return GateCheck("localisation", None, f"{message}: too few to judge")
    passed = bool(gain.high >= least)
    return _judge_limit("localisation", passed, f"{message}, {_format_gain(gain)}", f"gate.min_pointing_gain={least:g}")


def _check_latency(evidence: Evidence, most: float | None) -> GateCheck | None:
    if most is None:
        return None
    if evidence.latency is None:
        return GateCheck("latency", None, evidence.missing.get("latency", "not measured"))
    message = f"{evidence.latency.median:.0f} ms an image on {evidence.latency.hardware}"
    return _judge_limit("latency", evidence.latency.median <= most, message, f"gate.max_latency_ms={most:g}")


def _judge_limit(name: str, passed: bool, message: str, key: str) -> GateCheck:
    return GateCheck(name, passed, message if passed else f"{message} breaks {key}")


def _format_gain(difference: Estimate) -> str:
    return f"difference {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _format_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
