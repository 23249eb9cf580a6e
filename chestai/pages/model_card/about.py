"""The model card's sections in words: intended use, data, limits, provenance, licences."""

import re
from collections.abc import Mapping
from typing import Any

from chestai import RESEARCH_USE
from chestai.evaluation.evidence import Evidence
from chestai.model.pretrained.corpora import warn_of_overlap
from chestai.pages.model_card.cells import format_inline, get_reason
from chestai.pages.page import (
    DASH,
    SYNTHETIC_IMAGES,
    SYNTHETIC_MODEL,
    Cell,
    Note,
    Section,
    Table,
    format_name,
    format_number,
)

SECTIONS = {
    "operating_points": "Operating points",
    "calibration": "Calibration",
    "confidence": "Confidence",
    "urgency": "Triage",
    "queue": "Reading queue",
    "subgroups": "Subgroups",
    "localisation": "Localisation",
    "robustness": "Robustness",
    "retrieval": "Search by an image",
    "text_search": "Search by a text",
    "latency": "Latency",
}
NIH_TERMS = (
    "NIH ChestX-ray14",
    "Free to use with acknowledgement of the NIH Clinical Center, which provides the images. Wang et al., CVPR 2017.",
)
PHANTOM_TERMS = ("Phantoms", "Synthetic: drawn by this software. They show no real people and need no licence.")
METHODS = {
    "Intervals": "Field and Welsh, Bootstrapping clustered data, 2007",
    "Youden's J": "Youden, Index for rating diagnostic tests, 1950",
    "ECE": "Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015",
    "Brier score": "Brier, Verification of forecasts expressed in terms of probability, 1950",
    "Platt calibration": "Platt, Probabilistic outputs for support vector machines, 1999",
    "Temperature": "Guo et al., On calibration of modern neural networks, ICML 2017",
    "Isotonic calibration": "Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability "
    "estimates, KDD 2002",
    "Confidence bands": "Wilson, Probable inference, the law of succession, and statistical inference, 1927; Rao and "
    "Scott, A simple method for the analysis of clustered binary data, 1992",
    "Label sets": "Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005; Angelopoulos and Bates, A "
    "gentle introduction to conformal prediction, 2021",
    "Prevalence shift": "Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori "
    "probabilities, 2002",
    "Heatmaps": "Selvaraju et al., Grad-CAM, ICCV 2017; Zhou et al., Learning deep features for discriminative "
    "localization, CVPR 2016",
    "Pointing game": "Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016",
    "Overlap of maps": "Wang et al., ChestX-ray8, CVPR 2017",
    "Search": "Manning, Raghavan and Schütze, Introduction to information retrieval, 2008",
    "Model card": "Mitchell et al., Model cards for model reporting, FAT* 2019",
}


def build_facts(evidence: Evidence) -> list[tuple[str, str]]:
    """The facts at the top of the page."""
    data, openings = evidence.data, evidence.subject.openings
    opened = [] if openings is None else [("Test opened", _format_times(openings.own))]
    return [
        ("Macro-AUROC", format_inline(evidence.performance.macro_auroc)),
        ("Images", format_number(data.images)),
        ("Patients", format_number(data.patients)),
        ("Split", data.split),
        *opened,
        ("Training patients", "known" if evidence.subject.split_known else "not known"),
        ("Snapshot", data.snapshot or DASH),
        ("Data source", data.source),
    ]


def build_banner(evidence: Evidence) -> str:
    """Warnings that must not be overlooked; empty if there are none."""
    warnings = []
    if evidence.data.synthetic:
        warnings.append(SYNTHETIC_IMAGES)
    elif (evidence.subject.card or {}).get("synthetic"):
        warnings.append(SYNTHETIC_MODEL)
    pretrained = warn_of_overlap(evidence.subject.card or {}, evidence.data.source)
    if pretrained:
        warnings.append(pretrained)
    elif not evidence.subject.split_known:
        warnings.append("SPLIT NOT KNOWN: the model may have been trained on these patients.")
    return " ".join(warnings)


def build_intended_use(evidence: Evidence) -> Section:
    """What the model is for, and what it is not for."""
    findings = ", ".join(map(format_name, evidence.subject.findings))
    purpose = (
        "Research on the order in which frontal chest radiographs are read, and on models of this kind."
        if evidence.subject.card
        else "Research. These predictions come from a file; nothing else is known about the model behind them."
    )
    rows = [
        ["Use", purpose],
        ["Output", f"A probability for each of {format_number(len(evidence.subject.findings))} findings: {findings}."],
        ["Not for", f"{RESEARCH_USE} Do not use it to order a real reading queue."],
        ["Not for", "Images other than frontal chest radiographs, or findings that are not listed here."],
        ["Not for", "Ruling out disease: an image without these findings may show others."],
    ]
    return Section("use", "Intended use", [Table("What the model is and is not for", ["", ""], rows, prose=True)])


def build_data(evidence: Evidence) -> Section:
    """The data that the model was measured on, with caveats."""
    data = evidence.data
    snapshot = f"snapshot {data.snapshot}" if data.snapshot else "no snapshot"
    text = (
        f"{evidence.subject.title} was measured on the {data.split} split of {data.source} ({snapshot}), with "
        f"{format_number(data.images)} images of {format_number(data.patients)} patients. "
    )
    if data.val_images:
        text += f"Thresholds and calibration were chosen on {format_number(data.val_images)} val images."
    else:
        text += "There are no val images."
    if not evidence.subject.split_known:
        text += (
            " It is not known which patients the model was trained on. If it was trained on these, it will do worse on "
            "others."
        )
    parts: list[Note | Table] = [Note(text), *_build_openings(evidence), *map(Note, evidence.subject.notes)]
    if data.guesses:
        guessed = [[guess] for guess in data.guesses]
        parts.append(Table("Guessed when the data were built, and the key that settles it", [""], guessed, prose=True))
    if data.warnings:
        warned = [[warning] for warning in data.warnings]
        parts.append(Table("Warned of when the data were built, and the limit", [""], warned, prose=True))
    if data.unreadable:
        rows: list[list[str | Cell]] = [
            [format_name(why), format_number(count)] for why, count in data.unreadable.items()
        ]
        parts.append(Table("Images that could not be read; they are not counted below", ["reason", "images"], rows))
    return Section("data", "What was measured", parts)


def _build_openings(evidence: Evidence) -> list[Note]:
    openings = evidence.subject.openings
    if openings is None:
        return []
    text = (
        f"This model's test was opened {_format_times(openings.own)}, and this lake's test "
        f"{_format_times(openings.total)} for {format_number(openings.subjects)} models. "
    )
    if openings.subjects > 1 or openings.own > 1:
        text += "Who picks the best of them by these figures selects on test, and its figure is optimistic."
    return [Note(text.strip())]


def _format_times(count: int) -> str:
    return "once" if count == 1 else f"{format_number(count)} times"


def build_missing(evidence: Evidence) -> list[Section]:
    """Everything that was not measured; no section if nothing is missing."""
    empty = [name for name in SECTIONS if not getattr(evidence, name)]
    names = dict.fromkeys([*empty, *evidence.missing])
    rows = [[SECTIONS.get(name, format_name(name)), get_reason(evidence, name)] for name in names]
    caption = "Missing numbers count neither for nor against the model"
    table = Table(caption, ["section", "reason"], rows, prose=True)
    return [Section("missing", "Not measured", [table])] if rows else []


def build_limits(evidence: Evidence) -> Section:
    """What the numbers do not show."""
    sources = _list_sources(evidence)
    labels = "The labels are those of the source. Errors in them count as errors of the model."
    if NIH_TERMS in sources:
        labels = (
            "ChestX-ray14's labels were mined from reports by a text classifier. Radiologists who reviewed the images "
            "disagreed with many of them (Oakden-Rayner, Academic Radiology 2020). The model is measured against these "
            "labels."
        )
    if evidence.data.synthetic:
        labels = "Phantoms have exact labels because they are drawn. Nothing here applies to real patients."
    rows = [
        ["Labels", labels],
        [
            "Domain shift",
            "A model trained at one hospital can lose accuracy at another, and can rely on scanner marks or view "
            "position instead of disease (Zech et al., PLOS Medicine 2018). Measure it on your own images first.",
        ],
        [
            "Groups",
            "Models of this kind have under-diagnosed some groups of patients (Seyyed-Kalantari et al., Nature "
            "Medicine 2021). Only the groups on this page were examined.",
        ],
        [
            "Probabilities",
            "Calibrated probabilities hold at the prevalence of the val split. A different prevalence needs a new "
            "calibration.",
        ],
        [
            "Intervals",
            "They cover the random choice of patients, but not a change of site, label errors or retraining.",
        ],
        ["Use", RESEARCH_USE],
    ]
    table = Table("What the numbers on this page do not show", ["", ""], rows, prose=True)
    return Section("limits", "Limits and ethics", [table])


def build_provenance(evidence: Evidence) -> Section:
    """Where the model comes from."""
    card, subject = evidence.subject.card, evidence.subject
    if card is None:
        text = "These predictions were made elsewhere: the model, its training data and its software are not known."
        return Section("provenance", "Provenance", [Note(text)])
    origin: Mapping[str, Any] = card.get("provenance") or {}
    properties = {
        "version": format_number(subject.version) if subject.version is not None else DASH,
        "MLflow run": card.get("run_id"),
        "trained on snapshot": card.get("snapshot"),
        "trained on source": origin.get("source"),
        "trained on phantoms": _format_bool(card["synthetic"]) if "synthetic" in card else None,
        "training patients known": _format_bool(subject.split_known),
        "measured on snapshot": evidence.data.snapshot,
        "commit": origin.get("commit"),
        "Python": origin.get("python"),
        "input size, pixels": card.get("size"),
        "test-time views": ", ".join(["plain", *map(format_name, card.get("tta") or ())]),
        "calibration": (card.get("calibration") or {}).get("method"),
        "taught by": _format_teacher(origin.get("teacher")),
    }
    rows = [[name, str(value)] for name, value in properties.items() if value not in (None, "")]
    parts = [Table("Model", ["", ""], rows, prose=True), *_build_network_table(card)]
    parents = [
        [str(parent.get("run_id", DASH)), str(parent.get("snapshot", DASH))]
        for parent in origin.get("assembled_from") or []
    ]
    if parents:
        parts.append(Table("Assembled from", ["MLflow run", "snapshot"], parents))
    pretraining = [
        [str(one["weights"]), ", ".join(one["corpora"]) or "not told", str(one.get("sha256", DASH))]
        for one in origin.get("pretraining") or []
    ]
    if pretraining:
        parts.append(Table("Initial weights", ["weights", "trained on", "SHA-256"], pretraining))
    packages = [[name, str(version)] for name, version in (origin.get("packages") or {}).items()]
    if packages:
        parts.append(Table("Packages", ["package", "version"], packages))
    return Section("provenance", "Provenance", parts)


def _format_teacher(teacher: Mapping[str, Any] | None) -> str | None:
    if not teacher:
        return None
    return f"version {teacher['teacher']}, with a share of {teacher['share']} at temperature {teacher['temperature']}"


def _format_bool(value: bool) -> str:
    return "yes" if value else "no"


def _build_network_table(card: Mapping[str, Any]) -> list[Table]:
    rows = [
        [str(member.get("backbone", DASH)), _format_numbers(member.get("mean")), _format_numbers(member.get("std"))]
        for member in card.get("members") or []
    ]
    caption = "Networks, with the mean and standard deviation that normalise their pixels"
    return [Table(caption, ["backbone", "mean", "sd"], rows)] if rows else []


def _format_numbers(values: Any) -> str:
    return ", ".join(format_number(float(value), 3) for value in values) if values else DASH


def build_licences(evidence: Evidence) -> Section:
    """Terms of the data and the software, and sources of the methods."""
    rows = [*map(list, _list_sources(evidence)), ["This software", "Apache-2.0."]]
    methods = [[name, text] for name, text in METHODS.items()]
    parts = [Table("Licences", ["", ""], rows, prose=True), Table("Methods", ["", ""], methods, prose=True)]
    return Section("licences", "Licences and methods", parts)


def _list_sources(evidence: Evidence) -> list[tuple[str, str]]:
    """The data sets that were measured on, with their terms; a snapshot joins its sources by +."""
    names = [name for name in re.split(r"[+,\s]+", evidence.data.source) if name]
    terms = [NIH_TERMS for name in names if name.lower().startswith("nih")]
    if evidence.data.synthetic:
        terms = [PHANTOM_TERMS, *terms]
    others = [name for name in names if not name.lower().startswith(("nih", "phantom"))]
    return list(dict.fromkeys([*terms, *((name, "Subject to the terms of its owners.") for name in others)]))
