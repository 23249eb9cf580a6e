"""Where evidence goes: the model card, its tables and plots, into the lake, MLflow and the registry."""

import base64
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np

from chestai.evaluation.evidence import Evidence
from chestai.evaluation.promotion_gate import GateCheck
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from chestai.pages.markdown import render_markdown
from chestai.pages.model_card import card
from chestai.pages.model_card.csv_tables import render_csv_tables
from chestai.pages.page import Figure, render_html


def render_files(evidence: Evidence, checks: Sequence[GateCheck] = ()) -> dict[str, bytes]:
    """Everything that is kept of an evaluation, file name -> content; checks of the gate where it was asked."""
    page = card.build_model_card(evidence, checks)
    made = {
        "model_card.html": render_html(page).encode(),
        "model_card.md": render_markdown(page).encode(),
        "report.json": json.dumps(evidence.report.to_dict(), indent=2).encode(),
        **{name: text.encode() for name, text in render_csv_tables(evidence).items()},
    }
    if checks:
        made["gate.json"] = json.dumps([asdict(check) for check in checks], indent=2).encode()
    for section in page.sections:
        figures = [part for part in section.parts if isinstance(part, Figure)]
        for number, figure in enumerate(figures, start=1):
            made[f"plots/{section.anchor}-{number}.svg"] = base64.b64decode(figure.image.partition(",")[2])
    return made


def save_files(lake: Lake, name: str, made: dict[str, bytes]) -> str:
    """Write the files to `reports/evaluation/<name>` of the lake; give the card's location."""
    for file, content in made.items():
        lake.write_bytes(content, "reports", "evaluation", name, *file.split("/"))
    return lake.uri("reports", "evaluation", name, "model_card.html")


def log_to_mlflow(
    registry: Registry, run_id: str, version: int | None, evidence: Evidence, made: dict[str, bytes]
) -> None:
    """Log the files and the main numbers to a run, and tell the registry version, where there is one, of them."""
    client, split = registry.connect(), evidence.data.split
    macro = evidence.report.macro_auroc
    values = {"macro_auroc": macro.value, "macro_auprc": evidence.report.macro_auprc.value}
    values |= {f"auroc_{row.finding}": row.auroc.value for row in evidence.report.findings}
    folder = f"evaluation/{split}"
    with mlflow.start_run(run_id=run_id) as active, tempfile.TemporaryDirectory() as local:
        mlflow.log_metrics({f"{split}_{name}": value for name, value in values.items() if np.isfinite(value)})
        for file, content in made.items():
            place = Path(local) / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        mlflow.log_artifacts(local, folder)
        card = f"{active.info.artifact_uri}/{folder}/model_card.html"
    if version is None:
        return
    interval = f"{macro.value:.4f} [{macro.low:.4f}, {macro.high:.4f}]"
    name = registry.tracking.model
    client.set_model_version_tag(name, str(version), f"{split}_macro_auroc", interval)
    client.set_model_version_tag(name, str(version), "model_card", card)
    told = f"{split} macro-AUROC {interval}, {evidence.data.images:,} images. Model card: run {run_id}, {folder}"
    client.update_model_version(name, str(version), description=told)
