"""A query, and what is found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestai.retrieval.filters import Filters


@dataclass(frozen=True, eq=False)
class QueryImage:
    """The image that others are to be like.

    Attributes:
        vector: (D,), its embedding, of any length.
        thumbnail: Of the network's input, see `chestai.imaging.thumbnail.shrink`; None: near-duplicates are not known.
        patient, sha256: Images of this patient and with this content are left out, where known.
    """

    vector: NDArray[np.float32]
    thumbnail: bytes | None = None
    patient: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Query:
    """What to search for, within filters.

    With an image, hits are ranked by cosine distance, and images must be called positive for the findings in `present`
    and negative for those in `absent`. Without one, they are ranked by the product of probabilities: p of what is to be
    present, 1 - p of what is to be absent. With neither, the most urgent images come first.

    Attributes:
        count: Of hits, at most.
    """

    image: QueryImage | None = None
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    count: int = 10


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    Attributes:
        distance: Cosine distance to the query's image, 0 to 2; None without one.
        score: The product of probabilities, 0 to 1; None with an image, or without findings.
        facts: Its row of `index_table.facts_schema`.
        probabilities: Finding -> calibrated probability.
        labels: Finding -> whether its label says that it is present; None = not known.
    """

    distance: float | None
    score: float | None
    facts: Mapping[str, Any]
    probabilities: Mapping[str, float]
    labels: Mapping[str, bool | None]

    @property
    def image_id(self) -> str:
        return str(self.facts["image_id"])

    @property
    def sha256(self) -> str:
        return str(self.facts["sha256"])
