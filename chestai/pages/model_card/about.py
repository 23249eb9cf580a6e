"""The model card's sections in words: what it is for, what was measured, limits, provenance, licences."""

import re
from collections.abc import Mapping
from typing import Any

from chestai.evaluation.evidence import Evidence
from chestai.notice import RESEARCH_USE
from chestai.pages.model_card.cells import format_inline, get_reason
from chestai.pages.page import DASH, Cell, Note, Section, Table, format_name, format_number

SECTIONS = {
    "points": "Operating points",
    "calibration": "Calibration",
    "urgency": "Triage",
    "queue": "Reading queue",
    "subgroups": "Subgroups",
    "localisation": "Localisation",
    "robustness": "Robustness",
    "latency": "Latency",
}
NIH_TERMS = (
    "NIH ChestX-ray14",
    "Free to use with acknowledgement of the NIH Clinical Center, which provides the images. Wang et al., CVPR 2017.",
)
PHANTOM_TERMS = ("Phantoms", "Synthetic: drawn by this software. They show no person and need no licence.")
METHODS = {
    "Intervals": "Field and Welsh, Bootstrapping clustered data, 2007",
    "Youden's J": "Youden, Index for rating diagnostic tests, 1950",
    "ECE": "Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015",
    "Brier score": "Brier, Verification of forecasts expressed in terms of probability, 1950",
    "Platt calibration": "Platt, Probabilistic outputs for support vector machines, 1999",
    "Temperature": "Guo et al., On calibration of modern neural networks, ICML 2017",
    "Isotonic calibration": "Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability "
    "estimates, KDD 2002",
    "Prevalence shift": "Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori "
    "probabilities, 2002",
    "Heat maps": "Selvaraju et al., Grad-CAM, ICCV 2017; Zhou et al., Learning deep features for discriminative "
    "localization, CVPR 2016",
    "Pointing game": "Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016",
    "Overlap of maps": "Wang et al., ChestX-ray8, CVPR 2017",
    "Model card": "Mitchell et al., Model cards for model reporting, FAT* 2019",
}


def build_facts(evidence: Evidence) -> list[tuple[str, str]]:
    """What stands at the top."""
    data = evidence.data
    return [
        ("Macro-AUROC", format_inline(evidence.report.macro_auroc)),
        ("Images", format_number(data.images)),
        ("Patients", format_number(data.patients)),
        ("Split", f"{data.split} (split {'known' if evidence.subject.split_known else 'not known'})"),
        ("Snapshot", data.snapshot or DASH),
        ("Data source", data.source),
    ]


def build_banner(evidence: Evidence) -> str:
    """What must not be overlooked; empty where nothing is."""
    warnings = []
    if evidence.data.synthetic:
        warnings.append("SYNTHETIC: computer-drawn phantoms, no X-rays of people.")
    elif (evidence.subject.card or {}).get("synthetic"):
        warnings.append("SYNTHETIC: the model learnt from computer-drawn phantoms, not from X-rays of people.")
    if not evidence.subject.split_known:
        warnings.append("SPLIT NOT KNOWN: it may have been trained on these patients.")
    return " ".join(warnings)


def build_intended_use(evidence: Evidence) -> Section:
    """Intended use, and what it is not for."""
    findings = ", ".join(map(format_name, evidence.subject.findings))
    what = (
        "Research on the order in which frontal chest radiographs are read, and on models of this kind."
        if evidence.subject.card
        else "These are predictions of a model of which nothing else is known here; they were measured for research."
    )
    rows = [
        ["For", what],
        ["Answers", f"A probability for each of {format_number(len(evidence.subject.findings))} findings: {findings}."],
        ["Not for", f"{RESEARCH_USE} Do not order a real reading queue by it."],
        ["Not for", "Other images than frontal chest radiographs, and findings that are not named here."],
        ["Not for", "Ruling disease out: an image without any of these findings may show others."],
    ]
    return Section("use", "Intended use", [Table("What it is for, and what not", ["", ""], rows, prose=True)])


def build_data(evidence: Evidence) -> Section:
    """On what, with what a reader must know of it."""
    data = evidence.data
    where = f"snapshot {data.snapshot}" if data.snapshot else "no snapshot"
    text = (
        f"{evidence.subject.title}, on {format_number(data.images)} images of {format_number(data.patients)} patients: split "
        f"{data.split}, source {data.source}, {where}. "
    )
    text += (
        f"Choices were made on {format_number(data.val_images)} val images." if data.val_images else "No val images."
    )
    if not evidence.subject.split_known:
        text += " It is not known which patients the model learnt from: where it knew these, it does worse on others."
    parts: list[Note | Table] = [Note(text), *map(Note, evidence.subject.notes)]
    if data.unread:
        rows: list[list[str | Cell]] = [[format_name(why), format_number(count)] for why, count in data.unread.items()]
        parts.append(Table("Images that could not be read, and count nowhere below", ["reason", "images"], rows))
    return Section("data", "What was measured", parts)


def build_missing(evidence: Evidence) -> list[Section]:
    """All that was not measured, in one place; nothing where all was."""
    empty = [name for name in SECTIONS if not getattr(evidence, name)]
    names = dict.fromkeys([*empty, *evidence.missing])
    rows = [[SECTIONS.get(name, format_name(name)), get_reason(evidence, name)] for name in names]
    table = Table("Absent numbers speak neither for the model nor against it", ["section", "why"], rows, prose=True)
    return [Section("missing", "Not measured", [table])] if rows else []


def build_limits(evidence: Evidence) -> Section:
    """What no number above tells."""
    sources = _list_sources(evidence)
    labels = "It was measured against labels as the source gives them; errors among these count as errors of the model."
    if NIH_TERMS in sources:
        labels = (
            "ChestX-ray14's labels were mined from reports by a text classifier; radiologists who looked at the images "
            "disagreed with a good part of them (Oakden-Rayner, Academic Radiology 2020). The model is measured "
            "against those labels."
        )
    if evidence.data.synthetic:
        labels = "Labels of phantoms are exact, because they were drawn. Nothing here says anything of real patients."
    rows = [
        ["Labels", labels],
        [
            "Domain shift",
            "A model learnt at one hospital can lose accuracy at another, and can use scanner marks or view position "
            "instead of disease (Zech et al., PLOS Medicine 2018). Measure on your own images first.",
        ],
        [
            "Groups",
            "Models of this kind have under-diagnosed some groups of patients (Seyyed-Kalantari et al., Nature "
            "Medicine 2021). Only the groups on this page were looked at.",
        ],
        [
            "Probabilities",
            "Where they were calibrated on val, they hold for its prevalence; another one needs another calibration.",
        ],
        ["Intervals", "They cover the chance of drawing these patients, not another site, label error or retraining."],
        ["Use", RESEARCH_USE],
    ]
    return Section("limits", "Limits and ethics", [Table("What no number here tells", ["", ""], rows, prose=True)])


def build_provenance(evidence: Evidence) -> Section:
    """Where the model comes from."""
    card, subject = evidence.subject.card, evidence.subject
    version = format_number(subject.version) if subject.version is not None else DASH
    known = _format_bool(subject.split_known)
    if card is None:
        text = "Predictions made elsewhere: no card tells of the model, what it learnt from or what software made it."
        return Section("provenance", "Provenance", [Note(text)])
    origin: Mapping[str, Any] = card.get("provenance") or {}
    named = {
        "version": version,
        "MLflow run": card.get("run_id"),
        "learnt from snapshot": card.get("snapshot"),
        "learnt from source": origin.get("source"),
        "learnt from phantoms": _format_bool(card["synthetic"]) if "synthetic" in card else None,
        "known which patients it learnt from": known,
        "measured on snapshot": evidence.data.snapshot,
        "commit": origin.get("commit"),
        "Python": origin.get("python"),
        "input, pixels a side": card.get("size"),
        "views at test time": ", ".join(["plain", *map(format_name, card.get("tta") or ())]),
        "calibration": (card.get("calibration") or {}).get("method"),
    }
    rows = [[name, str(value)] for name, value in named.items() if value not in (None, "")]
    parts = [Table("Model", ["", ""], rows, prose=True), *_build_network_table(card)]
    assembled = origin.get("assembled_from") or []
    if assembled:
        parents = [[str(one.get("run_id", DASH)), str(one.get("snapshot", DASH))] for one in assembled]
        parts.append(Table("Assembled from", ["MLflow run", "snapshot"], parents))
    packages = [[name, str(version)] for name, version in (origin.get("packages") or {}).items()]
    if packages:
        parts.append(Table("Packages", ["package", "version"], packages))
    return Section("provenance", "Provenance", parts)


def _format_bool(value: bool) -> str:
    return "yes" if value else "no"


def _build_network_table(card: Mapping[str, Any]) -> list[Table]:
    rows = [
        [str(one.get("backbone", DASH)), _format_numbers(one.get("mean")), _format_numbers(one.get("std"))]
        for one in card.get("members") or []
    ]
    return (
        [Table("Networks; pixels are normalised by mean and deviation", ["backbone", "mean", "sd"], rows)]
        if rows
        else []
    )


def _format_numbers(values: Any) -> str:
    return ", ".join(format_number(float(value), 3) for value in values) if values else DASH


def build_licences(evidence: Evidence) -> Section:
    """Who may use what, and whose methods these are."""
    rows = [*map(list, _list_sources(evidence)), ["This software", "Apache-2.0."]]
    cited = [[name, text] for name, text in METHODS.items()]
    parts = [Table("Licences", ["", ""], rows, prose=True), Table("Methods", ["", ""], cited, prose=True)]
    return Section("licences", "Licences and methods", parts)


def _list_sources(evidence: Evidence) -> list[tuple[str, str]]:
    """The data sets measured on, with their terms; sources are joined by + in a snapshot."""
    names = [name for name in re.split(r"[+,\s]+", evidence.data.source) if name]
    found = [NIH_TERMS for name in names if name.lower().startswith("nih")]
    if evidence.data.synthetic:
        found = [PHANTOM_TERMS, *found]
    others = [name for name in names if not name.lower().startswith(("nih", "phantom"))]
    return list(dict.fromkeys([*found, *((name, "On the terms of its owners.") for name in others)]))
