"""What initial weights learnt from: patients where they are known, corpora where a file says nothing of patients."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chestai.model.bundle import CARD, WEIGHTS, read_card
from chestai.model.pretrained.corpora import expand, find_overlap
from chestai.model.seen_patients import SeenPatients


class Ancestry(NamedTuple):
    """The trainings behind initial weights.

    known: Whether it is known that none saw a patient of the source but those of `patients`.
    patients: The patients of each training that lists them.
    pretraining: A record of each other training, for the card's provenance: `weights` (a file's name, or imagenet),
        `sha256` (of a file, 16 digits) and `corpora` (empty: not told).
    """

    known: bool
    patients: tuple[SeenPatients, ...] = ()
    pretraining: tuple[dict[str, Any], ...] = ()


def find_ancestry(which: str, told: Sequence[str], source: str) -> Ancestry:
    """The trainings behind initial weights.

    Patients are known of no weights and of ImageNet (nobody), and of a bundle's weights as far as its card knows. Of
    any other file a user may tell the corpora. If those have no film of the source, its patients are not among them.

    Args:
        which: As of `load_pretrained`; the content of a file is not checked.
        told: Corpora or families of a file, see `chestai.model.pretrained.corpora`.
        source: Of the snapshot that is trained on.

    Raises:
        UserError: The card beside the weights, or its list of patients, is damaged or missing.
    """
    if which == "none":
        return Ancestry(True)
    if which == "imagenet":
        return Ancestry(True, (), ({"weights": which, "corpora": ["imagenet"]},))
    path = Path(which)
    if path.name == WEIGHTS and (path.parent / CARD).is_file():
        card, patients = read_card(path.parent)
        return Ancestry(card.split_known, patients, tuple(card.provenance.get("pretraining", ())))
    corpora = expand(told)
    record = {"weights": path.name, "sha256": _hash(path), "corpora": list(corpora)}
    return Ancestry(bool(corpora) and not find_overlap(corpora, source), (), (record,))


def _hash(path: Path) -> str:
    """16 digits of the file's SHA-256; empty if the file is gone, which must not cost a finished training."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
