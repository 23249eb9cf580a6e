"""What the endpoint may show, by `serve.modes`: with numbers, or flags alone."""

from chestai.config.schema import Modes
from serve.db.records import Study
from serve.db.worklist import Order, WorklistEntry, WorklistPage
from serve.problems import ApiError
from serve.schemas import (
    FlaggedImageRecord,
    FlaggedPrediction,
    FlaggedWorklistEntry,
    FlagTriage,
    ImageRecord,
    WorklistResponse,
    is_flagged,
)

OVERLAYS_OFF = {"overlays_off": "overlays are switched off (serve.modes)"}
FLAGS_ONLY = {"flags_only": "findings are not told, so none can be asked for (serve.modes)"}


def check_overlays(modes: Modes) -> None:
    """Raises `Refused` where overlays are not shown."""
    if not modes.overlays or modes.flag_only:
        raise ApiError(403, "overlays_off", "this endpoint shows no overlays (serve.modes)")


def check_finding(modes: Modes, finding: str | None) -> None:
    """Raises `Refused` where a list by finding would tell findings that are not shown."""
    if finding is not None and modes.flag_only:
        raise ApiError(403, "flags_only", "this endpoint tells no findings (serve.modes), so none can be asked for")


def order(modes: Modes) -> Order:
    """Of the worklist."""
    if not modes.reordering:
        return "arrival"
    return "bucket" if modes.flag_only else "score"


def display_studies(modes: Modes, page: WorklistPage) -> WorklistResponse:
    """A page of the worklist as it may be shown."""
    rows = [_flag(one) for one in page.studies] if modes.flag_only else page.studies
    return WorklistResponse(studies=rows, cursor=page.cursor)


def display_record(modes: Modes, study: Study) -> ImageRecord | FlaggedImageRecord:
    """All that may be shown of an image."""
    if not modes.flag_only:
        return ImageRecord(**dict(study))
    answers = [
        FlaggedPrediction(
            model_version=one.model_version,
            flagged=is_flagged(one.bucket),
            triage=FlagTriage(bucket=one.bucket),
            snapshot=one.snapshot,
            at=one.at,
        )
        for one in study.predictions
    ]
    return FlaggedImageRecord(image=study.image, predictions=answers, reviews=study.reviews, labels=study.labels)


def _flag(row: WorklistEntry) -> FlaggedWorklistEntry:
    shown = {name: getattr(row, name) for name in FlaggedWorklistEntry.model_fields if name != "flagged"}
    return FlaggedWorklistEntry(**shown, flagged=is_flagged(row.bucket))
