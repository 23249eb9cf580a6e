"""Whether a header says that an image is frontal, and which body part it shows, in the words that hospitals use."""

import contextlib
import re
import unicodedata

from pydicom import Dataset

from chestai.imaging.dicom.grayscale import first
from chestai.labels.demographics import AP, PA, parse_view

# Parts of Body Part Examined (PS3.16 Annex L) and of its variants in several languages, and words that say nothing.
CHESTS = ("CHEST", "THORA", "TORAX", "TORAC", "THX", "CXR", "LUNG", "PULMO", "PECHO", "PEITO", "POUMON", "BRUSTK")
UNKNOWN_PARTS = ("UNKNOWN", "UNDEFINED", "UNSPECIFIED", "NOTSPECIFIED", "NONE", "OTHER", "NA", "ANY", "DEFAULT", "")

# Beginnings of words of View Position (PS3.3 C.8.1.1, C.8.11.5), of view codes (PS3.16 CID 4010) and of their variants
# that no plain frontal image has.
NOT_FRONTAL = re.compile(
    r"\b(LL|RL|LAT|LLAT|RLAT|SEIT|PROFIL|PERFIL|[LR][AP]?O\b|OBL|DECUB|DCB|SWIM|LORD|X[ -]?TAB|CROSS|TANG|AXIAL)"
)
SIDES = {"L", "R", "LEFT", "RIGHT"}  # alone, the side of a lateral image; beside other words, a marker
LATERAL_CODES = {"R-10228", "R-10232", "R-10236", "399173006", "399198007", "399067008"}
FRONTAL = re.compile(r"\b(AP|PA|ANTERO|POSTERO|FRONTAL)")


def is_chest(part: str) -> bool:
    """Whether Body Part Examined means the chest or nothing."""
    letters = re.sub(r"[^A-Z]", "", _fold(part))
    return letters in UNKNOWN_PARTS or any(chest in letters for chest in CHESTS)


def find_view(dataset: Dataset) -> tuple[bool, str | None]:
    """Reads the view from View Position and its code, else from the patient's orientation, else from descriptions.

    Returns:
        Whether the image may be frontal; and PA, AP or None if the header does not say.
    """
    items = list(dataset.get("ViewCodeSequence") or ())
    texts = [_text(dataset, "ViewPosition"), *(_text(item, "CodeMeaning") for item in items)]
    if any(map(denies_frontal, texts)) or any(_text(item, "CodeValue") in LATERAL_CODES for item in items):
        return False, None
    named = next((view for text in texts if (view := _name_view(text))), None)
    if named or any(FRONTAL.search(_fold(text)) for text in texts):
        return True, named
    if any(axis.strip().upper().startswith(("A", "P")) for axis in _values(dataset, "PatientOrientation")):
        return False, None  # a row or column goes from back to front
    told = [_fold(_text(dataset, keyword)) for keyword in ("SeriesDescription", "ProtocolName")]
    return not any(NOT_FRONTAL.search(text) and not FRONTAL.search(text) for text in told), None


def denies_frontal(text: str) -> bool:
    """Whether the words for a view mean one that is not frontal, such as lateral, oblique or lordotic."""
    words = {*re.findall(r"[A-Z]+", _fold(text))}
    return NOT_FRONTAL.search(_fold(text)) is not None or (bool(words) and words <= SIDES)


def _name_view(text: str) -> str | None:
    folded = _fold(text)
    if folded.startswith("POSTERO"):
        return PA
    return AP if folded.startswith("ANTERO") else parse_view(text)


def _values(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword) or ()
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _text(dataset: Dataset, keyword: str) -> str:
    return str(first(dataset, keyword) or "").strip(" \0")


def _fold(text: str) -> str:
    """Upper case without accents, whichever of Latin-1 and UTF-8 the text came in."""
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return "".join(char for char in unicodedata.normalize("NFKD", text.upper()) if not unicodedata.combining(char))
