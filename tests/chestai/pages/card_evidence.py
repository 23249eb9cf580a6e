"""Evidence written by hand: plausible numbers, nothing computed."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

from chestai.calibration.bands import Band, FindingBands
from chestai.calibration.conformal import LabelThresholds
from chestai.evaluation.evidence import EvaluatedModel, EvaluationData, Evidence, Latency, RobustnessReport
from chestai.labels.findings import NIH14
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.comparison import Comparison
from chestai.metrics.coverage import CoverageReport, FindingCoverage, RangeFrequency
from chestai.metrics.localisation import OVERLAPS, LocalisationReport, MapReport
from chestai.metrics.operating_points import POINTS, PointReport
from chestai.metrics.reliability import CalibrationReport, Curve, FindingCalibration
from chestai.metrics.report import FindingReport, PerformanceReport
from chestai.metrics.subgroups import GapReport, GroupReport, SubgroupReport
from chestai.metrics.thresholds import Confusion
from chestai.triage.metrics import CutReport, UrgencyReport
from chestai.triage.queue_simulation import POLICIES, QueueReport, Scenario, WaitReport
from tests.chestai.pages import search_evidence

NAN = math.nan
UNDEFINED = Estimate(NAN, NAN, NAN)
RARE = "Hernia"  # has no positive image, so all its metrics are undefined

CARD: dict[str, Any] = {
    "members": [
        {"backbone": "densenet121", "mean": [0.5034], "std": [0.2512]},
        {"backbone": "resnet50", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ],
    "size": 320,
    "tta": ["flip"],
    "calibration": {"method": "platt", "slope": [1.0], "intercept": [0.0]},
    "triage": {"weights": {"Pneumothorax": 1.0, "Edema": 0.95}, "urgent": 0.8, "soon": 0.5},
    "split_known": True,
    "synthetic": False,
    "snapshot": "87e6e9af17ca",
    "run_id": "53162d0a9f7f4c2b8e0e3f1a2b3c4d5e",
    "provenance": {
        "source": "nih",
        "commit": "0123456789ab+",
        "python": "3.11.7",
        "pos_weight": [1.0] * 14,
        "packages": {"torch": "2.9.0", "timm": "1.0.20"},
        "assembled_from": [
            {"run_id": "one", "snapshot": "87e6e9af17ca"},
            {"run_id": "two", "snapshot": "87e6e9af17ca"},
        ],
    },
}


def make_estimate(value: float, margin: float = 0.02) -> Estimate:
    return Estimate(value, value - margin, value + margin)


def make_evidence(**changes: Any) -> Evidence:
    """Evidence for all sections except latency, which is missing; `changes` replace fields."""
    values: dict[str, Any] = {
        "subject": EvaluatedModel("chestai version 3", 3, NIH14, CARD, True),
        "data": make_data(),
        "performance": make_report(),
        "operating_points": make_points(),
        "calibration": tuple(
            map(make_calibration, ("none", "platt", "isotonic", "shifted"), (0.21, 0.011, 0.012, 0.009))
        ),
        "calibration_method": "platt",
        "urgency": make_urgency(),
        "queue": make_queue(),
        "subgroups": make_subgroups(),
        "localisation": make_localisation(),
        "robustness": make_robustness(),
        "latency": None,
        "missing": {"latency": "this process has no network"},
        "comparisons": {"champion": Comparison(0.795, 0.812, Estimate(0.01712, 0.0112, 0.0231))},
        "confidence": make_confidence(),
        "retrieval": search_evidence.make_retrieval(),
        "text_search": search_evidence.make_text_search(),
    }
    return Evidence(**values | changes)


def make_bare_evidence() -> Evidence:
    """External predictions of two findings for one image: almost nothing is defined."""
    rows = tuple(FindingReport(finding, 0, 1, UNDEFINED, UNDEFINED) for finding in ("Mass", "Odd_$<b>|finding"))
    return Evidence(
        subject=EvaluatedModel(
            "preds_<i>.csv", None, ("Mass", "Odd_$<b>|finding"), None, False, ("3 rows | `of` none",)
        ),
        data=EvaluationData("", "elsewhere", "all", 1, 1, False, 0, {}, {}, {}),
        performance=PerformanceReport(
            rows, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, defined=0, images=1, patients=1, resamples=0, seed=0
        ),
        operating_points=(),
        calibration=(),
        calibration_method="none",
        urgency=None,
        queue=None,
        subgroups=None,
        localisation=None,
        robustness=None,
        latency=None,
        missing={"urgency": "no urgent study", "queue": "no urgent study.", "fun": "<script>alert(1)</script>"},
    )


def make_undefined_evidence() -> Evidence:
    """Evidence for every section, with only undefined values."""
    scenario = make_queue().scenario
    maps = MapReport("model", UNDEFINED, (UNDEFINED,) * len(OVERLAPS), (UNDEFINED,) * len(OVERLAPS), {"Mass": (NAN, 0)})
    empty = Curve((), (), ())
    return make_evidence(
        performance=make_bare_evidence().performance,
        operating_points=(PointReport("Mass", "f1", NAN, None, *[UNDEFINED] * 4),),
        calibration=(
            CalibrationReport("platt", (FindingCalibration("Mass", NAN, NAN, NAN, empty),), NAN, NAN, NAN, empty),
        ),
        urgency=UrgencyReport(("Mass",), 0, 0, UNDEFINED, UNDEFINED, (), {"urgent": (0, 0)}),
        queue=QueueReport(scenario, (WaitReport("fifo", "urgent", 0, NAN, NAN, NAN, NAN),)),
        subgroups=SubgroupReport((GroupReport("sex", "F", 60, 1, UNDEFINED, UNDEFINED),), (), (), 50),
        localisation=LocalisationReport(0, 0, (maps,), (), {}, "closed form", 7),
        robustness=RobustnessReport(1, {("blur", 1): Comparison(NAN, NAN, UNDEFINED)}),
        latency=Latency(NAN, NAN, "1 core"),
        missing={},
        comparisons={"champion": Comparison(NAN, NAN, UNDEFINED)},
        confidence=CoverageReport(0.1, (make_unmeasured("Mass"),)),
        retrieval=search_evidence.make_undefined_retrieval("Mass"),
        text_search=search_evidence.make_undefined_text_search(),
    )


def make_data(**changes: Any) -> EvaluationData:
    prevalence = dict(zip(NIH14, np.linspace(0.19, 0.002, 14).tolist(), strict=True))
    values: dict[str, Any] = {
        "snapshot": "87e6e9af17ca",
        "source": "nih",
        "split": "test",
        "images": 25596,
        "patients": 2797,
        "synthetic": False,
        "val_images": 11212,
        "val_prevalence": {finding: value / 1.7 for finding, value in prevalence.items()},
        "prevalence": prevalence | {RARE: 0.0},
        "guesses": ("nih: no official split (split.by)",),
        "warnings": ("3 of 24 boxes do not fit on their images (sanity.boxes_off_image)",),
        "unreadable": {"truncated": 3, "not_an_image": 1},
    }
    return EvaluationData(**values | changes)


def make_report() -> PerformanceReport:
    rows = tuple(
        FindingReport(
            finding, 4000 - 280 * at, 21596 + 280 * at, make_estimate(0.71 + 0.015 * at), make_estimate(0.4 - 0.02 * at)
        )
        for at, finding in enumerate(NIH14[:-1])
    )
    return PerformanceReport(
        findings=(*rows, FindingReport(RARE, 0, 25596, UNDEFINED, UNDEFINED)),
        macro_auroc=Estimate(0.8123456789012345, 0.801, 0.823),
        macro_auprc=make_estimate(0.25),
        micro_auroc=make_estimate(0.86),
        micro_auprc=make_estimate(0.31),
        defined=13,
        images=25596,
        patients=2797,
        resamples=1000,
        seed=17,
    )


def make_points() -> tuple[PointReport, ...]:
    rates = (make_estimate(0.81), make_estimate(0.72), make_estimate(0.123), make_estimate(0.991, 0.001))
    return tuple(
        PointReport(finding, point, NAN, None, *[UNDEFINED] * 4)
        if finding == RARE
        else PointReport(finding, point, 0.0123 * (at + 1), Confusion(2100, 6411, 16085, 1000), *rates)
        for point in POINTS
        for at, finding in enumerate(NIH14)
    )


def make_calibration(method: str, ece: float) -> CalibrationReport:
    predicted = tuple(np.linspace(0.03, 0.83, 13).tolist())
    observed = tuple(p ** (1 + 8 * ece) for p in predicted)
    curve = Curve(predicted, observed, tuple(range(13000, 0, -1000)))
    rows = tuple(FindingCalibration(finding, ece, 0.004, 0.05, curve) for finding in NIH14[:-1])
    undefined = FindingCalibration(RARE, NAN, NAN, NAN, Curve((), (), ()))
    return CalibrationReport(method, (*rows, undefined), ece, 0.0041, 0.0512, curve)


def make_confidence() -> CoverageReport:
    shares = [make_estimate(share) for share in (0.913, 0.897, 0.898, 0.72, 0.27, 0.01)]
    edges = [0.0006, 0.0025, 0.011, 0.047, 0.18, 0.5, 0.82]
    rows = []
    for finding in NIH14[:-1]:
        bands = [
            Band(0.7 * start, 1.1 * end, 3000 - 500 * at, (start + end) / 2, 400 - 60 * at, start, end)
            for at, (start, end) in enumerate(pairwise(edges))
        ]
        ranges = [RangeFrequency(6000 - 1000 * at, make_estimate(band.observed)) for at, band in enumerate(bands)]
        ranges[-1] = RangeFrequency(40, Estimate(0.95, 0.92, 1.0))
        thresholds, counts = LabelThresholds(0.081, 0.32), (4000, 21500)
        rows.append(
            FindingCoverage(finding, FindingBands(tuple(bands)), tuple(ranges), 7, thresholds, *counts, *shares)
        )
    return CoverageReport(0.1, (*rows, make_unmeasured(RARE)))


def make_unmeasured(finding: str) -> FindingCoverage:
    """A finding that neither val nor the split has enough labels of."""
    bands = FindingBands((), "val has 3 patients with a known label, 10 are needed")
    return FindingCoverage(finding, bands, (), 25596, LabelThresholds(0, 0.004), 0, 25596, *[UNDEFINED] * 6)


def make_urgency() -> UrgencyReport:
    rates = (make_estimate(0.7), make_estimate(0.9), make_estimate(0.5), make_estimate(0.95))
    return UrgencyReport(
        findings=("Pneumothorax", "Edema"),
        images=25000,
        urgent=3500,
        auroc=make_estimate(0.85),
        auprc=make_estimate(0.5),
        cuts=(
            CutReport("urgent", 0.8, Confusion(1500, 800, 20700, 2000), *rates),
            CutReport("soon", 0.5, Confusion(2500, 3800, 17700, 1000), *rates),
        ),
        counts={"urgent": (1500, 800), "soon": (1000, 3000), "routine": (1000, 17700)},
    )


def make_queue() -> QueueReport:
    waits = {
        "fifo": ((55.2, 48.1, 160.3, 402.0), (55.0, 48.0, 160.0, 400.0)),
        "score": ((9.1, 0.0, 30.0, 911.2), (70.1, 20.2, 310.0, 1804.3)),
        "score_capped": ((15.3, 4.0, 61.0, 290.1), (64.0, 30.2, 180.0, 300.4)),
    }
    scenario = Scenario(50, 4, 4.5, 2.0, 24, 100, 120, 17)
    rows = [
        WaitReport(policy, group, studies, *waits[policy][group != "urgent"])
        for policy in POLICIES
        for group, studies in (("urgent", 16800), ("routine", 103200), ("all", 120000))
    ]
    return QueueReport(scenario, tuple(rows))


def make_subgroups() -> SubgroupReport:
    names = {
        "age": ("0-19", "20-39", "40-59", "60-79", "80+"),
        "sex": ("F", "M"),
        "view": ("PA", "AP"),
        "age, sex": tuple(f"{age}, {sex}" for age in ("20-39", "40-59", "60-79") for sex in "FM"),
    }
    groups = [
        GroupReport(axis, name, 4000 + at, 900 + at, make_estimate(0.8 - 0.01 * at), make_estimate(0.25 + 0.02 * at))
        for axis, group_names in names.items()
        for at, name in enumerate(group_names)
    ]
    groups[4] = GroupReport("age", "80+", 300, 90, UNDEFINED, UNDEFINED)
    gaps = (
        GapReport("age", "auroc", "0-19", "60-79", make_estimate(0.03), NIH14[:9]),
        GapReport("age", "fnr", "0-19", "60-79", make_estimate(0.06), NIH14[:9]),
        GapReport("sex", "auroc", "F", "M", make_estimate(0.01), NIH14[:13]),
    )
    return SubgroupReport(tuple(groups), gaps, (("age, sex", "80+, M", 31), ("view", "unlikely_view", 4)), 50)


def make_localisation() -> LocalisationReport:
    def maps(name: str, level: float) -> MapReport:
        reach = tuple(make_estimate(level * (1 - threshold)) for threshold in OVERLAPS)
        return MapReport(name, make_estimate(level, 0.05), reach, reach[::-1], {"Mass": (level, 40), RARE: (NAN, 0)})

    names = {"model": 0.61, "random": 0.11, "centre": 0.2, "untrained_network": 0.15}
    gains = {name: make_estimate(0.61 - level, 0.06) for name, level in names.items() if name != "model"}
    every = tuple(maps(name, level) for name, level in names.items())
    return LocalisationReport(
        984, 180, every, tuple(maps(name, level + 0.1) for name, level in names.items()), gains, "closed form", 7
    )


def make_robustness() -> RobustnessReport:
    names = ("brightness", "contrast", "blur", "noise", "resolution", "jpeg", "rotation")
    drops = {
        (name, severity): Comparison(0.81, 0.81 - fall, make_estimate(-fall, 0.008))
        for at, name in enumerate(names)
        for severity, fall in ((1, 0.004), (2, 0.01 + 0.004 * at), (3, 0.03 + 0.01 * at))
    }
    drops["noise", 3] = Comparison(NAN, NAN, UNDEFINED)
    return RobustnessReport(2000, drops)
