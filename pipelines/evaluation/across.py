"""A registered model on the test splits of other lakes: `pipelines.evaluate model=champion across=[LAKE, ...]`."""

import time

import numpy as np
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from chestai.cli.summary import Summary
from chestai.errors import UserError
from chestai.evaluation.cross_corpus import CorpusLabels, CorpusReport, measure_corpora
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.metrics.masking import compute_prevalence
from chestai.model.bundle import Bundle
from chestai.pages.cross_corpus import build_cross_corpus_page, render_cross_corpus_csv
from chestai.pages.markdown import render_markdown
from chestai.pages.page import SYNTHETIC_IMAGES, render_html
from pipelines.cluster import ray_cluster
from pipelines.evaluation import report
from pipelines.evaluation.candidate import CANDIDATE, find_candidate
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.leakage import check_leakage
from pipelines.evaluation.openings import open_split
from pipelines.inference.labelled_predictions import load_usable_rows, match_predictions, predict_labelled

HOME = "home"


def evaluate_across(run: EvaluationRun) -> Summary:
    """Measure a model on the test split of its own lake and of others, and write page and table.

    Raises:
        UserError: A lake has no build, no test image or no finding of the model; or the model was trained on its
            patients.
    """
    chosen = run.config.evaluate.model
    model = run.registry.load(str(find_candidate(run).version) if chosen == CANDIDATE else chosen)
    lakes = {HOME: run.lake, **{name: Lake(uri) for name, uri in _name_lakes(run.config.evaluate.across)}}
    title = f"{model.name} version {model.version}"
    snapshots = {name: lake.find_snapshot() for name, lake in lakes.items()}
    for name, lake in lakes.items():
        _check_corpus(model.bundle, title, name, lake, snapshots[name])
    with ray_cluster(run.config.cluster):
        corpora = [_predict(run, model.bundle, title, name, lakes[name], snapshots[name]) for name in lakes]
    for corpus in corpora:
        if not ((corpus.targets == 1).any(axis=0) & (corpus.targets == 0).any(axis=0)).any():
            raise UserError(f"{corpus.name}: no finding of {title} has a positive and a negative test image")
    fitted_on = _read_targets(model.bundle, run.lake, run.snapshot, ["val"])
    findings, bootstrap = model.bundle.card.findings, run.config.evaluate.bootstrap()
    reports = measure_corpora(corpora, findings, model.bundle.calibration, fitted_on, bootstrap)
    banner = SYNTHETIC_IMAGES if any(snapshot.synthetic for snapshot in snapshots.values()) else ""
    page = build_cross_corpus_page(title, reports, banner)
    files = {
        "cross_corpus.html": render_html(page).encode(),
        "cross_corpus.md": render_markdown(page).encode(),
        "cross_corpus.csv": render_cross_corpus_csv(reports),
    }
    location = report.save_files(run.lake, f"version-{model.version}-across", files, "cross_corpus.html")
    return _summarise(run, title, reports, location)


def _name_lakes(uris: tuple[str, ...]) -> list[tuple[str, str]]:
    """Name each lake by the last part of its path that tells it from the others."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    depth = 1
    while len({"/".join(part[-depth:]) for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    names = ["/".join(part[-depth:]) for part in parts]
    if len({*names, HOME}) <= len(names):
        raise UserError(f"evaluate.across={','.join(uris)} names a lake twice")
    return list(zip(names, uris, strict=True))


def _check_corpus(bundle: Bundle, title: str, name: str, lake: Lake, snapshot: Snapshot) -> None:
    if snapshot.splits.get("test", {}).get("files", 0) == 0:
        raise UserError(f"{lake.root}: snapshot {snapshot.snapshot_id} has no frontal test image with a file")
    if not {*snapshot.vocabulary} & {*bundle.card.findings}:
        raise UserError(f"{lake.root} labels none of the findings of {title}, only {', '.join(snapshot.vocabulary)}")
    check_leakage(bundle, f"{title} on {name}", lake, snapshot, ["test"])


def _predict(run: EvaluationRun, bundle: Bundle, title: str, name: str, lake: Lake, snapshot: Snapshot) -> CorpusLabels:
    run.screen.say(f"{name} ...")
    try:
        open_split(lake, snapshot, "test", title)
    except (OSError, DeltaError) as error:  # a lake of others may be for reading only
        if name == HOME:
            raise
        run.screen.say(f"{name}: this look at its test cannot be written down there: {' '.join(str(error).split())}")
    test = predict_labelled(bundle, lake, snapshot, ["test"], run.config.evaluate.batch_size, run.screen)
    prevalence = compute_prevalence(_read_targets(bundle, lake, snapshot, ["train", "val"]))
    return CorpusLabels(name, test.logits, test.targets, test.patients, prevalence)


def _read_targets(bundle: Bundle, lake: Lake, snapshot: Snapshot, splits: list[str]) -> NDArray[np.float32]:
    """Return the (N, F) targets of the usable images of some splits, in the order of the model's findings."""
    rows, findings = load_usable_rows(lake, snapshot, splits), bundle.card.findings
    none = np.zeros((rows.num_rows, len(findings)))
    return match_predictions(rows, snapshot, findings, rows["image_id"].to_pylist(), none, {}).targets


def _summarise(run: EvaluationRun, title: str, reports: tuple[CorpusReport, ...], location: str) -> Summary:
    home, *others = reports
    told = [f"{corpus.name} {corpus.performance.macro_auroc.value:.3f} ({-corpus.drop:+.3f})" for corpus in others]
    facts = {
        "headline": f"{title}: macro-AUROC {home.performance.macro_auroc.value:.3f} at home; {', '.join(told)}",
        "corpora": {corpus.name: _list_facts(corpus) for corpus in reports},
        "page": location,
    }
    images = sum(corpus.performance.images for corpus in reports)
    return Summary("across", images, "images", time.monotonic() - run.started, facts)


def _list_facts(corpus: CorpusReport) -> dict[str, object]:
    shifted = corpus.shifted
    return {
        "images": corpus.performance.images,
        "findings": len(corpus.findings),
        "macro_auroc": round(corpus.performance.macro_auroc.value, 4),
        "home_macro_auroc": round(corpus.home.value, 4),
        "ece": round(corpus.as_trained.macro_ece, 4),
        "ece_at_its_prevalence": round(shifted.macro_ece, 4) if shifted else None,
    }
