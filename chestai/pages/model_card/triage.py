"""The model card's sections on triage: the urgency score, and a simulated reading queue."""

import math
from typing import Any

from chestai.evaluation.evidence import Evidence
from chestai.pages.model_card import plots
from chestai.pages.model_card.cells import CONFUSION_COLUMNS, build_not_measured, format_confusion, format_inline
from chestai.pages.page import Cell, Figure, Note, Section, Table, format_name, format_number, format_percent
from chestai.triage.metrics import UrgencyReport
from chestai.triage.queue_simulation import QueueReport, Scenario, WaitReport

POLICIES = {
    "fifo": "first come, first served",
    "score": "highest score first",
    "score_capped": "highest score first, waits capped",
}
CUTS = {"urgent": "urgent", "soon": "urgent or soon"}
STATISTICS = ("median", "mean", "p95", "maximum")


def build_triage(evidence: Evidence) -> Section:
    """How well the triage score puts urgent studies first."""
    report, title = evidence.urgency, "Triage"
    if report is None:
        return Section("triage", title, build_not_measured(evidence, "urgency"))
    findings = ", ".join(map(format_name, report.findings))
    urgent = f"{format_number(report.urgent)} ({format_percent(report.urgent, report.images)})"
    text = (
        f"An image counts as urgent if its labels include one of: {findings}. This is known for "
        f"{format_number(report.images)} images, of which {urgent} are urgent. The triage score separates urgent from "
        f"other images with an AUROC of {format_inline(report.auroc)} and an AUPRC of {format_inline(report.auprc)}."
    )
    tables = [_build_cut_table(report), _build_bucket_table(report)]
    return Section(
        "triage", title, [Note(text), *_build_rule_note(evidence), *(table for table in tables if table.rows)]
    )


def _build_rule_note(evidence: Evidence) -> list[Note]:
    rule: dict[str, Any] = (evidence.subject.card or {}).get("triage") or {}
    if not rule.get("weights"):
        return []
    weights = ", ".join(f"{format_name(finding)} {weight:g}" for finding, weight in rule["weights"].items())
    text = (
        f"The score is the highest product of weight and probability over these findings: {weights}. A score of "
        f"{rule['urgent']:.3g} or more is urgent, {rule['soon']:.3g} or more is soon, anything lower is routine."
    )
    return [Note(text)]


def _build_cut_table(report: UrgencyReport) -> Table:
    rows: list[list[str | Cell]] = [
        [CUTS.get(cut.bucket, format_name(cut.bucket)), format_number(cut.cut, 3), *format_confusion(cut)]
        for cut in report.cuts
    ]
    columns = ["bucket", "score from", *CONFUSION_COLUMNS]
    return Table("Urgent images found at each cut-off of the score", columns, rows)


def _build_bucket_table(report: UrgencyReport) -> Table:
    rows: list[list[str | Cell]] = []
    for bucket, (urgent, others) in report.counts.items():
        shares = [format_percent(urgent, report.urgent), format_percent(others, report.images - report.urgent)]
        cells = [Cell(format_number(count), share) for count, share in zip((urgent, others), shares, strict=True)]
        rows.append([format_name(bucket), *cells, format_percent(urgent, urgent + others)])
    columns = ["bucket", "urgent images", "other images", "urgent share of bucket"]
    return Table("Images in each bucket, with their share of all urgent or all other images", columns, rows)


def build_queue(evidence: Evidence) -> Section:
    """How long studies would wait in one simulated reading room."""
    report, title = evidence.queue, "Simulated reading queue"
    if report is None:
        return Section("queue", title, build_not_measured(evidence, "queue"))
    parts: list[Note | Table | Figure] = [Note(_describe_scenario(report.scenario, evidence.data.split))]
    waits = _sort_by_group(report)
    if any(math.isfinite(wait.mean) for wait in waits):
        names = [f"{format_name(wait.group)}: {_format_policy(wait.policy)}" for wait in waits]
        statistics = {name: [getattr(wait, name) for wait in waits] for name in STATISTICS}
        alt = "Waits by group and reading order: median, mean, 95th percentile and maximum; the table has the numbers."
        caption = "Shorter waits are further left. The scale is logarithmic, and linear below one minute."
        parts.append(Figure(plots.plot_waits(names, statistics), alt, caption))
    rows = [
        [format_name(wait.group), _format_policy(wait.policy), format_number(wait.studies)]
        + [format_number(getattr(wait, name), 1) for name in STATISTICS]
        for wait in waits
    ]
    columns = ["group", "reading order", "studies", *STATISTICS]
    return Section(
        "queue", title, [*parts, Table("Minutes from arrival until a reader opens the study", columns, rows)]
    )


def _format_policy(name: str) -> str:
    return POLICIES.get(name, format_name(name))


def _sort_by_group(report: QueueReport) -> list[WaitReport]:
    """The policies of each group next to each other, groups in the order of the report."""
    groups = list(dict.fromkeys(wait.group for wait in report.waits))
    return sorted(report.waits, key=lambda wait: groups.index(wait.group))


def _describe_scenario(scenario: Scenario, split: str) -> str:
    text = (
        f"This is a simulation of one scenario, not an observation. Studies arrive at random at a rate of "
        f"{scenario.studies_per_hour:g} per hour. Readers: {format_number(scenario.readers)}, each taking "
        f"{scenario.minutes:g} minutes per study (standard deviation {scenario.minutes_sd:g}), which is a load of "
        f"{scenario.load:.2f} of their capacity. Each run covers {scenario.hours:g} hours; there are "
        f"{format_number(scenario.runs)} runs. Scores and labels are drawn from the {split} images, and every reading "
        f"order gets the same arrivals. With waits capped, a study that has waited {scenario.max_wait_minutes:g} "
        "minutes is read next. Other loads give other waits."
    )
    if scenario.load >= 1:
        text += (
            " At a load of 1 or more the queue keeps growing, so these waits depend more on the length of a run than "
            "on the reading order."
        )
    return text
