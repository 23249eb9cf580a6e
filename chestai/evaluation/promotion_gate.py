"""The gate before `champion`: better than the one that holds it, and within every limit."""

from dataclasses import dataclass

import numpy as np

from chestai.config.schema import Gate
from chestai.evaluation.evidence import Evidence
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.localisation import MapReport

CHAMPION = "champion"  # the key of `Evidence.against`
# Crossings are reported, not judged: the widest gap among many small groups is wide by chance.
AXES = ("age", "sex", "view")
# Cells a side from which a map can point at a lesion. In the demo's phantoms DenseNet-121 points into 0.37 of the boxes
# with 3 x 3 cells (96 pixels) and into 0.69 with 5 x 5 (160 pixels); the centre prior into 0.33.
FINE_ENOUGH = 5


@dataclass(frozen=True)
class GateCheck:
    """One question that the gate asks. passed: None where it could not be judged, which does not refuse a model."""

    name: str
    passed: bool | None
    said: str


def run_checks(evidence: Evidence, limits: Gate) -> tuple[GateCheck, ...]:
    """Every check, in the order in which a person would ask; limits that are None are not asked for."""
    checks = [
        _better(evidence, limits.min_gain),
        _calibration(evidence, limits.max_ece),
        _gap(evidence, "auroc", limits.max_auroc_gap),
        _gap(evidence, "fnr", limits.max_fnr_gap),
        _localisation(evidence, limits.min_pointing_gain),
        _latency(evidence, limits.max_latency_ms),
    ]
    return tuple(check for check in checks if check is not None)


def failed_checks(checks: tuple[GateCheck, ...]) -> list[GateCheck]:
    """The checks that refuse."""
    return [check for check in checks if check.passed is False]


def _better(evidence: Evidence, least: float) -> GateCheck:
    if not evidence.against:
        return GateCheck("better", None, "there is no champion to beat: judged by the limits alone")
    compared = evidence.against[CHAMPION]
    said = f"macro-AUROC {compared.other:.4f}, champion {compared.baseline:.4f}, {_gain(compared.difference)}"
    passed = bool(compared.difference.low > least)  # False where the interval is undefined
    needs = f" (its lower end must lie above gate.min_gain={least:g})"
    return GateCheck("better", passed, said + ("" if passed else needs))


def _calibration(evidence: Evidence, most: float | None) -> GateCheck | None:
    if most is None:
        return None
    found = next((one for one in evidence.calibration if one.method == evidence.in_force), None)
    if found is None or np.isnan(found.macro_ece):
        return GateCheck("calibration", None, "no calibration error could be measured")
    excess = found.macro_ece - found.macro_floor
    said = f"ECE {found.macro_ece:.3f}, {excess:.3f} above chance ({found.macro_floor:.3f})"
    return _limit("calibration", bool(excess <= most), said, f"gate.max_ece={most:g}")


def _gap(evidence: Evidence, metric: str, most: float | None) -> GateCheck | None:
    if most is None:
        return None
    name, key = f"subgroup gap in {metric.upper()}", f"gate.max_{metric}_gap={most:g}"
    every = evidence.subgroups.gaps if evidence.subgroups else ()
    gaps = [one for one in every if one.metric == metric and one.axis in AXES and not np.isnan(one.gap.low)]
    if not gaps:
        return GateCheck(name, None, "no two subgroups are large enough")
    worst = max(gaps, key=lambda one: one.gap.low)
    said = f"{worst.axis}: {worst.worse} against {worst.better}, gap {_interval(worst.gap)}"
    return _limit(name, bool(worst.gap.low <= most), said, key)


def _localisation(evidence: Evidence, least: float | None) -> GateCheck | None:
    if least is None:
        return None
    found = evidence.localisation
    if found is None:
        return GateCheck("localisation", None, evidence.missing.get("localisation", "no boxes in this split"))
    if found.grid < FINE_ENOUGH:
        return GateCheck("localisation", None, f"maps of {found.grid} x {found.grid} cells are too coarse to point")
    control = max(found.all_cases[1:], key=_pointing)
    gain = found.gains[control.maps]
    said = (
        f"pointing {_pointing(found.all_cases[0]):.3f}, {control.maps} {_pointing(control):.3f} ({found.cases} boxes)"
    )
    if np.isnan(gain.high):
        return GateCheck("localisation", None, f"{said}: too few to judge")
    passed = bool(gain.high >= least)
    return _limit("localisation", passed, f"{said}, {_gain(gain)}", f"gate.min_pointing_gain={least:g}")


def _latency(evidence: Evidence, most: float | None) -> GateCheck | None:
    if most is None:
        return None
    if evidence.latency is None:
        return GateCheck("latency", None, evidence.missing.get("latency", "not measured"))
    said = f"{evidence.latency.median:.0f} ms an image on {evidence.latency.hardware}"
    return _limit("latency", evidence.latency.median <= most, said, f"gate.max_latency_ms={most:g}")


def _limit(name: str, passed: bool, said: str, key: str) -> GateCheck:
    return GateCheck(name, passed, said if passed else f"{said} breaks {key}")


def _pointing(maps: MapReport) -> float:
    return maps.pointing.value


def _gain(difference: Estimate) -> str:
    return f"difference {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
