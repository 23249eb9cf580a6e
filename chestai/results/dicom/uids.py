"""UIDs of the objects about a film: always the same for the same result, so that sending one again makes no duplicate.

They are name-based UUIDs under the arc 2.25 (PS3.5 Annex B.2), which needs no registration.
"""

import uuid
from typing import Literal, get_args

from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

Kind = Literal["sr", "sc", "seg"]  # structured report, secondary capture, segmentation
KINDS: tuple[Kind, ...] = get_args(Kind)
SOP_CLASSES: dict[Kind, str] = {
    "sr": ComprehensiveSRStorage,
    "sc": SecondaryCaptureImageStorage,
    "seg": SegmentationStorage,
}

_NAMESPACE = uuid.UUID("8d7e4aa3-9093-4ff0-93d6-583c38f68b7c")  # drawn once; another one would change every UID


def instance_uid(film: str, model: str, version: int, kind: Kind, revision: int = 0) -> str:
    """The SOP Instance UID of an object, without building it.

    Args:
        film: SOP Instance UID of the film.
        model, version: Of the registered model.
        kind: Of the object.
        revision: Of the result. Only the report has revisions: a verdict changes neither picture nor heatmap, which
            keep the UID that they had before it.
    """
    return derive_uid("instance", film, model, str(version), kind, str(revision if kind == "sr" else 0))


def series_uid(film: str, model: str, version: int, kind: Kind) -> str:
    """The Series Instance UID of all objects of a kind that a model version makes of a film."""
    return derive_uid("series", film, model, str(version), kind)


def derive_uid(*names: str) -> str:
    """The UID of a list of names: at most 44 characters; another list has another UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, repr(names)).int}"
