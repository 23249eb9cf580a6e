"""The model card's sections about the order of reading: the triage rule, and a simulated queue."""

import math
from typing import Any

from chestai.evaluation.evidence import Evidence
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import in_text, not_measured, share
from chestai.pages.page import Cell, Figure, Note, Section, Table, number, percent, words
from chestai.triage.metrics import UrgencyReport
from chestai.triage.queue_simulation import QueueReport, Scenario, WaitReport

POLICIES = {
    "fifo": "first come",
    "score": "highest score",
    "score_capped": "score, wait capped",
}
CUTS = {"urgent": "urgent", "soon": "urgent or soon"}
STATISTICS = ("median", "mean", "p95", "maximum")


def triage(evidence: Evidence) -> Section:
    """Does the rule put urgent studies on top?"""
    report, title = evidence.urgency, "Triage"
    if report is None:
        return Section("triage", title, not_measured(evidence, "urgency"))
    findings = ", ".join(map(words, report.findings))
    how = (
        f"A study counts as urgent here where its labels hold one of: {findings}. Of {number(report.images)} images "
        f"of which that is known, {number(report.urgent)} ({percent(report.urgent, report.images)}) are. The triage "
        f"score tells them apart with an AUROC of {in_text(report.auroc)} and an AUPRC of {in_text(report.auprc)}."
    )
    tables = [_cuts(report), _buckets(report)]
    return Section("triage", title, [Note(how), *_rule(evidence), *(table for table in tables if table.rows)])


def _rule(evidence: Evidence) -> list[Note]:
    rule: dict[str, Any] = (evidence.subject.card or {}).get("triage") or {}
    if not rule.get("weights"):
        return []
    weights = ", ".join(f"{words(finding)} {weight:g}" for finding, weight in rule["weights"].items())
    text = f"The score is the greatest weight x probability: {weights}. "
    return [
        Note(f"{text}From {rule['urgent']:.3g} on a study is urgent, from {rule['soon']:.3g} on soon, else routine.")
    ]


def _cuts(report: UrgencyReport) -> Table:
    rows: list[list[str | Cell]] = []
    for cut in report.cuts:
        found = cut.confusion
        counts = [number(count) for count in (found.tp, found.fp, found.tn, found.fn)]
        rates = [share(rate) for rate in (cut.sensitivity, cut.specificity, cut.ppv, cut.npv)]
        rows.append([CUTS.get(cut.bucket, words(cut.bucket)), number(cut.cut, 3), *counts, *rates])
    columns = ["called urgent", "from score", "TP", "FP", "TN", "FN", "sensitivity", "specificity", "PPV", "NPV"]
    return Table("What is called urgent against what is: from each cut on", columns, rows)


def _buckets(report: UrgencyReport) -> Table:
    rows: list[list[str | Cell]] = []
    for bucket, (urgent, others) in report.counts.items():
        shares = [percent(urgent, report.urgent), percent(others, report.images - report.urgent)]
        cells = [Cell(number(count), of) for count, of in zip((urgent, others), shares, strict=True)]
        rows.append([words(bucket), *cells, percent(urgent, urgent + others)])
    columns = ["bucket", "urgent", "not urgent", "urgent in bucket"]
    return Table("Images by bucket and truth; beside a count, its share of the column", columns, rows)


def queue(evidence: Evidence) -> Section:
    """How long studies would wait in one simulated reading room."""
    report, title = evidence.queue, "Reading queue, simulated"
    if report is None:
        return Section("queue", title, not_measured(evidence, "queue"))
    parts: list[Note | Table | Figure] = [Note(_scenario(report.scenario, evidence.data.split))]
    if any(math.isfinite(one.mean) for one in report.waits):
        names = [f"{words(one.group)}: {_policy(one.policy)}" for one in _by_group(report)]
        statistics = {name: [getattr(one, name) for one in _by_group(report)] for name in STATISTICS}
        alt = (
            "Waits by group and order of reading: median, mean, 95th percentile and maximum; the table has the numbers."
        )
        caption = "Further left is sooner. The scale is one of powers of ten, linear below one minute."
        parts.append(Figure(plots.waits(names, statistics), alt, caption))
    rows = [
        [words(one.group), _policy(one.policy), number(one.studies)]
        + [number(getattr(one, name), 1) for name in STATISTICS]
        for one in _by_group(report)
    ]
    columns = ["group", "order of reading", "studies", *STATISTICS]
    return Section("queue", title, [*parts, Table("Minutes from arrival until a reader opens a study", columns, rows)])


def _policy(name: str) -> str:
    return POLICIES.get(name, words(name))


def _by_group(report: QueueReport) -> list[WaitReport]:
    """Policies of the same group side by side, groups in the order of the report."""
    groups = list(dict.fromkeys(one.group for one in report.waits))
    return sorted(report.waits, key=lambda one: groups.index(one.group))


def _scenario(scenario: Scenario, split: str) -> str:
    text = (
        f"A simulation of one scenario, no observation: {scenario.studies_per_hour:g} studies an hour arrive at "
        f"random; readers: {number(scenario.readers)}; minutes to read a study: {scenario.minutes:g} (standard "
        f"deviation {scenario.minutes_sd:g}); {scenario.hours:g} hours, run {number(scenario.runs)} times. The load is "
        f"{scenario.load:.2f} of what can be read. Scores and truths are drawn from the {split} images; every order of "
        f"reading sees the same arrivals. With the wait capped, who has waited {scenario.max_wait_minutes:g} minutes "
        "goes first. Another load gives other waits."
    )
    if scenario.load >= 1:
        text += (
            " At a load of 1 or more queues only grow: these waits tell more of the length of a run than of the order."
        )
    return text
