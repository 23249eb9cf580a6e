"""The model card's sections about the order of reading: the triage rule, and a simulated queue."""

import math
from typing import Any

from chestai.evaluation.evidence import Evidence
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import build_not_measured, format_inline, format_share
from chestai.pages.page import Cell, Figure, Note, Section, Table, format_name, format_number, format_percent
from chestai.triage.metrics import UrgencyReport
from chestai.triage.queue_simulation import QueueReport, Scenario, WaitReport

POLICIES = {
    "fifo": "first come",
    "score": "highest score",
    "score_capped": "score, wait capped",
}
CUTS = {"urgent": "urgent", "soon": "urgent or soon"}
STATISTICS = ("median", "mean", "p95", "maximum")


def build_triage(evidence: Evidence) -> Section:
    """Does the rule put urgent studies on top?"""
    report, title = evidence.urgency, "Triage"
    if report is None:
        return Section("triage", title, build_not_measured(evidence, "urgency"))
    findings = ", ".join(map(format_name, report.findings))
    how = (
        f"A study counts as urgent here where its labels hold one of: {findings}. Of {format_number(report.images)} images "
        f"of which that is known, {format_number(report.urgent)} ({format_percent(report.urgent, report.images)}) are. The triage "
        f"score tells them apart with an AUROC of {format_inline(report.auroc)} and an AUPRC of {format_inline(report.auprc)}."
    )
    tables = [_build_cut_table(report), _build_bucket_table(report)]
    return Section(
        "triage", title, [Note(how), *_build_rule_note(evidence), *(table for table in tables if table.rows)]
    )


def _build_rule_note(evidence: Evidence) -> list[Note]:
    rule: dict[str, Any] = (evidence.subject.card or {}).get("triage") or {}
    if not rule.get("weights"):
        return []
    weights = ", ".join(f"{format_name(finding)} {weight:g}" for finding, weight in rule["weights"].items())
    text = f"The score is the greatest weight x probability: {weights}. "
    return [
        Note(f"{text}From {rule['urgent']:.3g} on a study is urgent, from {rule['soon']:.3g} on soon, else routine.")
    ]


def _build_cut_table(report: UrgencyReport) -> Table:
    rows: list[list[str | Cell]] = []
    for cut in report.cuts:
        found = cut.confusion
        counts = [format_number(count) for count in (found.tp, found.fp, found.tn, found.fn)]
        rates = [format_share(rate) for rate in (cut.sensitivity, cut.specificity, cut.ppv, cut.npv)]
        rows.append([CUTS.get(cut.bucket, format_name(cut.bucket)), format_number(cut.cut, 3), *counts, *rates])
    columns = ["called urgent", "from score", "TP", "FP", "TN", "FN", "sensitivity", "specificity", "PPV", "NPV"]
    return Table("What is called urgent against what is: from each cut on", columns, rows)


def _build_bucket_table(report: UrgencyReport) -> Table:
    rows: list[list[str | Cell]] = []
    for bucket, (urgent, others) in report.counts.items():
        shares = [format_percent(urgent, report.urgent), format_percent(others, report.images - report.urgent)]
        cells = [Cell(format_number(count), of) for count, of in zip((urgent, others), shares, strict=True)]
        rows.append([format_name(bucket), *cells, format_percent(urgent, urgent + others)])
    columns = ["bucket", "urgent", "not urgent", "urgent in bucket"]
    return Table("Images by bucket and truth; beside a count, its share of the column", columns, rows)


def build_queue(evidence: Evidence) -> Section:
    """How long studies would wait in one simulated reading room."""
    report, title = evidence.queue, "Reading queue, simulated"
    if report is None:
        return Section("queue", title, build_not_measured(evidence, "queue"))
    parts: list[Note | Table | Figure] = [Note(_describe_scenario(report.scenario, evidence.data.split))]
    if any(math.isfinite(one.mean) for one in report.waits):
        names = [f"{format_name(one.group)}: {_format_policy(one.policy)}" for one in _sort_by_group(report)]
        statistics = {name: [getattr(one, name) for one in _sort_by_group(report)] for name in STATISTICS}
        alt = (
            "Waits by group and order of reading: median, mean, 95th percentile and maximum; the table has the numbers."
        )
        caption = "Further left is sooner. The scale is one of powers of ten, linear below one minute."
        parts.append(Figure(plots.plot_waits(names, statistics), alt, caption))
    rows = [
        [format_name(one.group), _format_policy(one.policy), format_number(one.studies)]
        + [format_number(getattr(one, name), 1) for name in STATISTICS]
        for one in _sort_by_group(report)
    ]
    columns = ["group", "order of reading", "studies", *STATISTICS]
    return Section("queue", title, [*parts, Table("Minutes from arrival until a reader opens a study", columns, rows)])


def _format_policy(name: str) -> str:
    return POLICIES.get(name, format_name(name))


def _sort_by_group(report: QueueReport) -> list[WaitReport]:
    """Policies of the same group side by side, groups in the order of the report."""
    groups = list(dict.fromkeys(one.group for one in report.waits))
    return sorted(report.waits, key=lambda one: groups.index(one.group))


def _describe_scenario(scenario: Scenario, split: str) -> str:
    text = (
        f"A simulation of one scenario, no observation: {scenario.studies_per_hour:g} studies an hour arrive at "
        f"random; readers: {format_number(scenario.readers)}; minutes to read a study: {scenario.minutes:g} (standard "
        f"deviation {scenario.minutes_sd:g}); {scenario.hours:g} hours, run {format_number(scenario.runs)} times. The load is "
        f"{scenario.load:.2f} of what can be read. Scores and truths are drawn from the {split} images; every order of "
        f"reading sees the same arrivals. With the wait capped, who has waited {scenario.max_wait_minutes:g} minutes "
        "goes first. Another load gives other waits."
    )
    if scenario.load >= 1:
        text += (
            " At a load of 1 or more queues only grow: these waits tell more of the length of a run than of the order."
        )
    return text
