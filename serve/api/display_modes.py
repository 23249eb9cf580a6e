"""Display modes (`serve.modes`): what responses contain if overlays, reordering or numbers are switched off."""

from chestai.config.schema import Modes
from serve.db.records import Study
from serve.db.worklist.page import Order, WorklistEntry, WorklistPage
from serve.db.worklist.summary import WorklistSummary
from serve.problems import ApiError
from serve.schemas.inference import FlagTriage, is_flagged
from serve.schemas.studies import (
    FlaggedImageRecord,
    FlaggedPrediction,
    FlaggedWorklistEntry,
    ImageRecord,
    WorklistResponse,
)
from serve.schemas.worklist import SummaryResponse

OVERLAYS_OFF_ERRORS = {"overlays_off": "overlays are switched off (serve.modes)"}
FLAGS_ONLY_ERRORS = {"flags_only": "findings are hidden, so studies cannot be filtered by them (serve.modes)"}

HIDDEN_ERRORS = {"flags_only": "findings are hidden, and with them their text (serve.modes)"}


def check_findings(modes: Modes) -> None:
    """Raises ApiError (403) if findings are hidden."""
    if modes.flag_only:
        raise ApiError(403, "flags_only", "this endpoint hides findings, so it writes no text of them (serve.modes)")


def check_overlays(modes: Modes) -> None:
    """Raises ApiError (403) if overlays are switched off."""
    if not modes.overlays or modes.flag_only:
        raise ApiError(403, "overlays_off", "this endpoint shows no overlays (serve.modes)")


def check_finding_filter(modes: Modes, finding: str | None) -> None:
    """Raises ApiError (403) if a worklist filtered by finding would reveal hidden findings."""
    if finding is not None and modes.flag_only:
        raise ApiError(403, "flags_only", "this endpoint hides findings, so it cannot filter by them (serve.modes)")


def worklist_order(modes: Modes) -> Order:
    """Returns the order of the worklist."""
    if not modes.reordering:
        return "arrival"
    return "bucket" if modes.flag_only else "score"


def display_worklist(modes: Modes, page: WorklistPage) -> WorklistResponse:
    """Creates the response for a page of the worklist."""
    entries = [_to_flagged_entry(entry) for entry in page.studies] if modes.flag_only else page.studies
    return WorklistResponse(studies=entries, cursor=page.cursor)


def display_record(modes: Modes, study: Study) -> ImageRecord | FlaggedImageRecord:
    """Creates the response for an image."""
    if not modes.flag_only:
        return ImageRecord(**dict(study))
    predictions = [
        FlaggedPrediction(
            model_version=prediction.model_version,
            flagged=is_flagged(prediction.bucket),
            triage=FlagTriage(bucket=prediction.bucket),
            snapshot=prediction.snapshot,
            at=prediction.at,
        )
        for prediction in study.predictions
    ]
    return FlaggedImageRecord(**{**dict(study), "predictions": predictions})


def display_summary(modes: Modes, summary: WorklistSummary) -> SummaryResponse:
    """Creates the response for the worklist in numbers."""
    findings = {} if modes.flag_only else summary.findings
    return SummaryResponse(**{**dict(summary), "findings": findings})


def _to_flagged_entry(entry: WorklistEntry) -> FlaggedWorklistEntry:
    fields = {name: getattr(entry, name) for name in FlaggedWorklistEntry.model_fields if name != "flagged"}
    return FlaggedWorklistEntry(**fields, flagged=is_flagged(entry.bucket))
