"""What the draft of a report speaks of: the newest prediction of an image, and that of the newest earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult
from serve.db.models import ImageRow, PredictionRow
from serve.db.records import Image, Prediction
from serve.db.worklist.priors import load_priors


@dataclass(frozen=True)
class ScoredFilm:
    """An image and a prediction for it."""

    image: Image
    prediction: Prediction

    def make_result(self, model: str, points: Mapping[str, float | None], synthetic: bool) -> FilmResult:
        """The result, whose film is known by its image ID, and whose patient by the key.

        Args:
            model: The registered model's name.
            points: Finding -> operating point, in the order of the model.
            synthetic: Whether the model was trained on phantoms.
        """
        image, prediction, findings = self.image, self.prediction, []
        for name in (name for name in points if name in prediction.probabilities):
            value = prediction.probabilities[name]
            # without a probability there is no operating point either, so that nothing is said of the finding
            findings.append(
                FindingResult(name, 0.0, None) if value is None else FindingResult(name, value, points[name])
            )
        return FilmResult(
            film=Film("", image.image_id, "", "", patient_id=image.patient_key or "", issuer=image.source or ""),
            findings=tuple(findings),
            bucket=prediction.bucket,
            score=prediction.score,
            model=model,
            version=prediction.model_version,
            at=prediction.at,
            synthetic=synthetic,
        )


@dataclass(frozen=True)
class ReportFilms:
    """An image as it was scored last, None if it never was, and an earlier image of the same patient, if any."""

    film: ScoredFilm | None
    earlier: ScoredFilm | None = None


def load_report_films(session: Session, image_id: str) -> ReportFilms | None:
    """Returns what the draft of an image speaks of; None if there is no such image.

    The earlier image is the newest of `load_priors` that is of another study. Of several predictions, the one counts
    that the same model version made, for others cannot be compared; else the newest.
    """
    row = session.get(ImageRow, image_id)
    if row is None:
        return None
    film = _load_film(session, row)
    if film is None:
        return ReportFilms(None)
    priors = load_priors(session, image_id) or []
    other = next((one for one in priors if one.study_id is None or one.study_id != row.study_id), None)
    if other is None:
        return ReportFilms(film)
    return ReportFilms(
        film, _load_film(session, session.get_one(ImageRow, other.image_id), film.prediction.model_version)
    )


def _load_film(session: Session, row: ImageRow, version: int | None = None) -> ScoredFilm | None:
    """An image with its newest prediction, or that of a version if there is one; None without any."""
    found = None if version is None else session.get(PredictionRow, (row.image_id, version))
    if found is None:
        newest = (PredictionRow.at.desc(), PredictionRow.model_version.desc())
        query = select(PredictionRow).where(PredictionRow.image_id == row.image_id).order_by(*newest)
        found = session.scalars(query.limit(1)).first()
    return None if found is None else ScoredFilm(Image.model_validate(row), Prediction.model_validate(found))
