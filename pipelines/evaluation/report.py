"""Where evidence goes: the model card with its tables and plots, in the lake, in MLflow and at the registry version."""

import base64
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from chestai.cli.summary import Summary
from chestai.evaluation.evidence import Evidence
from chestai.evaluation.promotion_gate import GateCheck
from chestai.lake.lake import Lake
from chestai.model.registry import MODEL_CARD, Registry
from chestai.pages.markdown import render_markdown
from chestai.pages.model_card.card import build_model_card
from chestai.pages.model_card.csv_tables import render_csv_tables
from chestai.pages.page import Figure, render_html
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.promotion import GateVerdict

CAVEATS = {
    "val": "Calibration, operating points and the best epoch were chosen on these very images.",
    "train": "Models of this corpus were trained on these images, so the numbers are optimistic.",
}


def list_caveats(split: str, *others: str) -> tuple[str, ...]:
    """What limits the meaning of numbers from this split, and other caveats; empty ones are left out."""
    return tuple(caveat for caveat in (CAVEATS.get(split, ""), *others) if caveat)


def render_files(evidence: Evidence, checks: Sequence[GateCheck] = ()) -> dict[str, bytes]:
    """All files that are kept of an evaluation: name -> content. checks: those of the gate, if it was applied."""
    page = build_model_card(evidence, checks)
    files = {
        "model_card.html": render_html(page).encode(),
        "model_card.md": render_markdown(page).encode(),
        "report.json": json.dumps(evidence.performance.to_dict(), indent=2).encode(),
        **{name: text.encode() for name, text in render_csv_tables(evidence).items()},
    }
    if checks:
        rows = [{"name": check.name, "passed": check.passed, "said": check.message} for check in checks]
        files["gate.json"] = json.dumps(rows, indent=2).encode()
    for section in page.sections:
        figures = [part for part in section.parts if isinstance(part, Figure)]
        for number, figure in enumerate(figures, start=1):
            files[f"plots/{section.anchor}-{number}.svg"] = base64.b64decode(figure.image.partition(",")[2])
    return files


def save_files(lake: Lake, name: str, files: dict[str, bytes], page: str = "model_card.html") -> str:
    """Write the files to `reports/evaluation/<name>` of the lake and return the location of the page."""
    for file, content in files.items():
        lake.write_bytes(content, "reports", "evaluation", name, *file.split("/"))
    return lake.uri("reports", "evaluation", name, page)


def start_mlflow_run(run: EvaluationRun, name: str) -> str:
    """Create an MLflow run for an evaluation that belongs to no registered version, and return its ID."""
    run.registry.connect()
    tags = {"chestai.stage": "evaluate", "chestai.snapshot": run.snapshot.snapshot_id}
    with mlflow.start_run(run_name=name, tags=tags) as active:
        return str(active.info.run_id)


def log_to_mlflow(
    registry: Registry, run_id: str, version: int | None, evidence: Evidence, files: dict[str, bytes]
) -> None:
    """Log the files and main numbers to an MLflow run; a registered version also gets tags and a description."""
    client, split = registry.connect(), evidence.data.split
    macro = evidence.performance.macro_auroc
    values = {"macro_auroc": macro.value, "macro_auprc": evidence.performance.macro_auprc.value}
    values |= {f"auroc_{row.finding}": row.auroc.value for row in evidence.performance.findings}
    folder = f"evaluation/{split}"
    with mlflow.start_run(run_id=run_id) as active, tempfile.TemporaryDirectory() as local:
        mlflow.log_metrics({f"{split}_{name}": value for name, value in values.items() if np.isfinite(value)})
        for file, content in files.items():
            path = Path(local) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        mlflow.log_artifacts(local, folder)
        card = f"{active.info.artifact_uri}/{folder}/model_card.html"
    if version is None:
        return
    interval = f"{macro.value:.4f} [{macro.low:.4f}, {macro.high:.4f}]"
    name = registry.tracking.model
    if evidence.subject.openings is not None:
        client.set_model_version_tag(name, str(version), "test_openings", str(evidence.subject.openings.own))
    client.set_model_version_tag(name, str(version), f"{split}_macro_auroc", interval)
    client.set_model_version_tag(name, str(version), MODEL_CARD, card)
    description = f"{split} macro-AUROC {interval}, {evidence.data.images:,} images. Model card: run {run_id}, {folder}"
    client.update_model_version(name, str(version), description=description)


def summarise(
    run: EvaluationRun, evidence: Evidence, verdict: GateVerdict, card: str, inputs: dict[str, Any] | None = None
) -> Summary:
    """The stage's summary. card: location of the model card. inputs: what the verdict depends on, see `list_inputs`."""
    report, split = evidence.performance, evidence.data.split
    macro = report.macro_auroc
    interval = f"{macro.value:.3f} [{macro.low:.3f}, {macro.high:.3f}]"
    facts: dict[str, Any] = {
        "headline": f"{split} macro-AUROC {interval}; {verdict.summary}",
        "done": inputs,
        "model": evidence.subject.title,
        "version": evidence.subject.version,
        "verdict": verdict.summary,
        "gate": {check.name: check.message for check in verdict.checks},
        "snapshot": evidence.data.snapshot,
        "split": split,
        "macro_auroc": interval,
        "auroc": {row.finding: row.auroc.value for row in report.findings},
        "notes": " ".join(evidence.subject.notes) or "none",
        "split_known": evidence.subject.split_known,
        "test_openings": None if evidence.subject.openings is None else evidence.subject.openings.own,
        "model_card": card,
        "report": report.to_dict(),
    }
    return Summary("evaluate", report.images, "images", time.monotonic() - run.started, facts)
