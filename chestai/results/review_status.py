"""How far a result may be trusted: whether reviewers have spoken, and what they say of a finding."""

from collections.abc import Iterable
from typing import Literal

from chestai.results.film_result import ABSENT, PRESENT, FilmResult, ReviewedFinding

Stage = Literal["preliminary", "final", "amended"]
Opinion = Literal["present", "absent", "unsure"]


def find_stage(result: FilmResult) -> Stage:
    """Preliminary until a reviewer has spoken, then final, and amended from revision 2.

    A result whose reviews were all withdrawn is preliminary again: nobody stands for it.
    """
    if not result.reviewed:
        return "preliminary"
    return "amended" if result.revision > 1 else "final"


def find_reviews(result: FilmResult, finding: str) -> list[ReviewedFinding]:
    """The verdicts on a finding, by time."""
    return [review for review in result.reviews if review.finding == finding]


def find_opinion(reviews: Iterable[ReviewedFinding]) -> Opinion | None:
    """What reviewers say of a finding; unsure if they disagree, None if none has spoken."""
    opinions = {name_opinion(review) for review in reviews}
    if len(opinions) > 1:
        return "unsure"
    return opinions.pop() if opinions else None


def name_opinion(review: ReviewedFinding) -> Opinion:
    """What a verdict says of the finding itself, rather than of the model."""
    if review.verdict in PRESENT:
        return "present"
    return "absent" if review.verdict in ABSENT else "unsure"
