"""Label vocabularies and the parsing of label strings into findings and targets."""

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

NO_FINDING = "No Finding"

# Other spellings of the same finding; the box list says "Infiltrate" where the labels say "Infiltration".
SYNONYMS: dict[str, str] = {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}


def canonical(name: str) -> str:
    """The vocabulary's spelling of a finding, with surrounding blanks removed."""
    stripped = name.strip()
    return SYNONYMS.get(stripped, stripped)


def parse_findings(label: str, vocabulary: Sequence[str] = NIH14) -> list[str]:
    """Findings of a pipe-separated label string, in vocabulary order and without repeats.

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
