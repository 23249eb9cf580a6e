"""Which results may go out together, and as of when."""

from collections.abc import Sequence
from datetime import datetime

from chestai.results.film_result import FilmResult
from chestai.results.text import clean


def find_time(results: Sequence[FilmResult]) -> datetime:
    """When the results became what they are: the latest scoring or review."""
    return max(at for result in results for at in (result.at, *(review.at for review in result.reviews)))


def check_belonging(results: Sequence[FilmResult]) -> None:
    """
    Raises:
        ValueError: There are no results, they are not of one study, patient and model version, a film is there twice or
            has no SOP Instance UID. The message names no patient.
    """
    if not results:
        raise ValueError("there are no results")
    if any(not clean(result.film.sop_instance) for result in results):
        raise ValueError("a film has no SOP Instance UID: nothing names it")
    if len({result.film.sop_instance for result in results}) < len(results):
        raise ValueError("a film is there twice")
    if len({(result.film.study, result.film.patient_id, result.film.issuer) for result in results}) > 1:
        raise ValueError("the films are of several studies or patients")
    if len({(result.model, result.version) for result in results}) > 1:
        raise ValueError("the results are of several model versions")
