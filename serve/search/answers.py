"""Hits as a response shows them: with what the database knows of them, as far as the display modes allow it."""

from chestai.config.schema import Modes
from chestai.retrieval.query import Hit
from serve.schemas.operations import ModelCard
from serve.schemas.search import FlaggedHit, SearchHit
from serve.search.known_images import KnownImage


def display_hit(hit: Hit, known: KnownImage | None, card: ModelCard, modes: Modes) -> SearchHit | FlaggedHit:
    """Creates the JSON of a hit.

    Args:
        known: Its record; None if it has none.
        card: Of the version whose library was searched.
    """
    facts, path = hit.facts, f"/images/{hit.sha256}"
    is_readable = facts["snapshot"] is not None or (known is not None and known.readable)
    flagged = FlaggedHit(
        image_id=hit.sha256,
        file_name=hit.image_id,
        distance=hit.distance,
        **{name: facts[name] for name in ("source", "view", "sex", "age_years", "split", "bucket")},
        reviewed=known is not None and known.reviewed,
        preview=f"{path}/preview" if is_readable else None,
        record=path if known is not None else None,
    )
    if modes.flag_only:
        return flagged
    points = {finding: point for finding, point in card.thresholds.items() if point is not None}
    return SearchHit(
        **dict(flagged),
        score=hit.score,
        probabilities=dict(hit.probabilities),
        positives=[
            finding
            for finding, probability in hit.probabilities.items()
            if finding in points and probability is not None and probability >= points[finding]
        ],
        labels=dict(hit.labels),
        verdicts={} if known is None else dict(known.verdicts),
    )
