"""Label vocabularies and the parsing of label strings into findings and targets.

Sources spell findings their own way; here is the one spelling that a lake uses, so that what means the same in two
sources is one finding.
"""

from collections.abc import Iterable, Sequence

# ChestX-ray14, in the order of Wang et al., "ChestX-ray8", CVPR 2017, as extended to 14 labels by the data set.
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

# Irvin et al., "CheXpert", AAAI 2019: its 14 observations without "No Finding", in our spelling.
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

# Common in sets of one folder a class.
OTHERS: tuple[str, ...] = ("Tuberculosis", "COVID-19")

# Every finding that we know by name, in the order in which a vocabulary lists its own.
KNOWN: tuple[str, ...] = tuple(dict.fromkeys((*NIH14, *CHEXPERT13, *OTHERS)))

NO_FINDING = "No Finding"

# Other spellings of the same finding, in lower case with blanks for underscores.
SYNONYMS: dict[str, str] = {
    "infiltrate": "Infiltration",  # NIH's own box list says so
    "pleural effusion": "Effusion",
    "oedema": "Edema",
    "airspace opacity": "Lung_Opacity",
    "covid": "COVID-19",
    "covid19": "COVID-19",
    "tb": "Tuberculosis",
    "normal": NO_FINDING,
    "healthy": NO_FINDING,
}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


_SPELLINGS = {**{_plain(name): name for name in (*KNOWN, NO_FINDING)}, **SYNONYMS}


def canonical(name: str) -> str:
    """The canonical spelling of a finding; an unknown name stays as it is, with underscores for blanks."""
    return _SPELLINGS.get(_plain(name)) or "_".join(name.split())


def merged(vocabularies: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Merges vocabularies: known findings in the order of `KNOWN`, then the others by name."""
    names = {name for vocabulary in vocabularies for name in vocabulary}
    return (*(name for name in KNOWN if name in names), *sorted(names - set(KNOWN)))


def parse_findings(label: str, vocabulary: Sequence[str] = NIH14) -> list[str]:
    """Parses a pipe-separated label string into findings, in vocabulary order and without repeats.

    ``"No Finding"`` gives an empty list.

    Raises:
        ValueError: the string is empty, names a finding outside the vocabulary, or joins "No Finding" with others.
    """
    names = {canonical(part) for part in label.split("|")}
    if names == {NO_FINDING}:
        return []
    unknown = sorted(names - set(vocabulary))
    if unknown:
        raise ValueError(f"unknown finding {unknown[0]!r}")
    return [finding for finding in vocabulary if finding in names]


def targets(findings: Iterable[str], vocabulary: Sequence[str] = NIH14) -> list[float]:
    """1.0 for each finding present and 0.0 for each absent, in vocabulary order."""
    present = set(findings)
    return [float(finding in present) for finding in vocabulary]
