"""What initial weights were trained on, and whether that may hold the patients of a test."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Families of published weights -> their corpora, as their authors name them. Read in 2026: EVA-X's pretrain/README.md
# (test images left out), Medical-MAE's PRETRAIN.md, RAD-DINO's model card, torchxrayvision's README of
# densenet121-res224-all (its split of NIH is a random one, says its issue 47).
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "eva-x": ("nih", "chexpert", "mimic"),
    "medical-mae": ("nih", "chexpert", "mimic"),
    "rad-dino": ("brax", "chexpert", "mimic", "nih", "padchest"),
    "torchxrayvision": ("nih", "padchest", "chexpert", "mimic", "google", "openi", "rsna"),
}

# Corpora whose films are those of another: radiologists' labels of Majkowska 2019, RSNA's and SIIM's challenges.
FILMS_OF = {"google": "nih", "rsna": "nih", "siim": "nih"}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """The corpora behind names of corpora and families, each once, in lower case."""
    lower = [name.strip().lower() for name in names]
    return tuple(dict.fromkeys(corpus for name in lower for corpus in FAMILIES.get(name, (name,))))


def find_overlap(corpora: Sequence[str], source: str) -> tuple[str, ...]:
    """Those of the corpora whose films may be among those of a snapshot's source, such as `nih+chexpert`.

    Names that differ after a hyphen only, such as chexpert and chexpert-plus, are of the same films.
    """
    measured = {_films(name) for name in re.split(r"[+,\s]+", source) if name}
    return tuple(corpus for corpus in corpora if _films(corpus) in measured)


def warn_of_overlap(card: Mapping[str, Any], source: str) -> str:
    """What a reader must know of a card's initial weights on a source; empty if there is nothing to warn of."""
    trainings = card.get("provenance", {}).get("pretraining") or ()
    shared = {name: training for training in trainings for name in find_overlap(training["corpora"], source)}
    if not shared:
        return ""
    files = ", ".join(dict.fromkeys(training["weights"] for training in shared.values()))
    return (
        f"PRETRAINED ON {', '.join(shared)}: the initial weights ({files}) may have been trained on these patients, "
        "which no list of them shows."
    )


def _films(corpus: str) -> str:
    name = corpus.lower().partition("-")[0]
    return FILMS_OF.get(name, name)
