"""Vocabularies of findings, and the parsing of label strings into findings and targets.

Sources spell findings differently. A lake uses the canonical spelling, so that findings of several sources match.
"""

from collections.abc import Iterable, Sequence

# ChestX-ray14, in the order of Wang et al., "ChestX-ray8", CVPR 2017, extended to 14 labels by the published data set.
NIH14: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

# Irvin et al., "CheXpert", AAAI 2019: its 14 observations without "No Finding", in canonical spelling.
CHEXPERT13: tuple[str, ...] = (
    "Enlarged_Cardiomediastinum",
    "Cardiomegaly",
    "Lung_Opacity",
    "Lung_Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Pleural_Other",
    "Fracture",
    "Support_Devices",
)

# Common in data sets with one folder per class.
OTHER_FINDINGS: tuple[str, ...] = ("Tuberculosis", "COVID-19")

# All findings with a canonical spelling, in the order of every vocabulary.
KNOWN_FINDINGS: tuple[str, ...] = tuple(dict.fromkeys((*NIH14, *CHEXPERT13, *OTHER_FINDINGS)))

NO_FINDING = "No Finding"

# Other spellings of findings, in lower case with spaces for underscores.
SYNONYMS: dict[str, str] = {
    "infiltrate": "Infiltration",  # in NIH's box list
    "pleural effusion": "Effusion",
    "oedema": "Edema",
    "airspace opacity": "Lung_Opacity",
    "pulmonary edema": "Edema",
    "pulmonary fibrosis": "Fibrosis",
    "covid": "COVID-19",
    "covid19": "COVID-19",
    "tb": "Tuberculosis",
    "normal": NO_FINDING,
    "healthy": NO_FINDING,
}


def _normalise(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


_SPELLINGS = {**{_normalise(name): name for name in (*KNOWN_FINDINGS, NO_FINDING)}, **SYNONYMS}


def canonicalise(name: str) -> str:
    """Returns the canonical spelling of a finding; an unknown name is kept, with underscores for spaces."""
    return _SPELLINGS.get(_normalise(name)) or "_".join(name.split())


def merge_vocabularies(vocabularies: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Merges vocabularies: findings of `KNOWN_FINDINGS` in its order, then all others by name."""
    names = {name for vocabulary in vocabularies for name in vocabulary}
    return (*(name for name in KNOWN_FINDINGS if name in names), *sorted(names - set(KNOWN_FINDINGS)))


def parse_findings(label: str, vocabulary: Sequence[str] = NIH14) -> list[str]:
    """Parses a pipe-separated label string into findings, in vocabulary order and without repeats.

    `"No Finding"` gives an empty list.

    Raises:
        ValueError: The string is empty, names a finding outside the vocabulary, or combines "No Finding" with others.
    """
    names = {canonicalise(part) for part in label.split("|")}
    if names == {NO_FINDING}:
        return []
    unknown = sorted(names - set(vocabulary))
    if unknown:
        raise ValueError(f"unknown finding {unknown[0]!r}")
    return [finding for finding in vocabulary if finding in names]


def encode_targets(findings: Iterable[str], vocabulary: Sequence[str] = NIH14) -> list[float]:
    """Encodes findings as 1.0 for each one present and 0.0 for each one absent, in vocabulary order."""
    present = set(findings)
    return [float(finding in present) for finding in vocabulary]
