"""What the endpoint may show, by `serve.modes`: with numbers, or flags alone."""

from chestai.config.schema import Modes
from serve.db.records import Study
from serve.db.worklist import Listed, Order, Page
from serve.problems import Refused
from serve.schemas import FlaggedAnswer, FlaggedImage, FlaggedStudy, Flags, Known, Studies, flagged

OVERLAYS_OFF = {"overlays_off": "overlays are switched off (serve.modes)"}
FLAGS_ONLY = {"flags_only": "findings are not told, so none can be asked for (serve.modes)"}


def check_overlays(modes: Modes) -> None:
    """Raises `Refused` where overlays are not shown."""
    if not modes.overlays or modes.flag_only:
        raise Refused(403, "overlays_off", "this endpoint shows no overlays (serve.modes)")


def check_finding(modes: Modes, finding: str | None) -> None:
    """Raises `Refused` where a list by finding would tell findings that are not shown."""
    if finding is not None and modes.flag_only:
        raise Refused(403, "flags_only", "this endpoint tells no findings (serve.modes), so none can be asked for")


def order(modes: Modes) -> Order:
    """Of the worklist."""
    if not modes.reordering:
        return "arrival"
    return "bucket" if modes.flag_only else "score"


def studies(modes: Modes, page: Page) -> Studies:
    """A page of the worklist as it may be shown."""
    rows = [_flag(one) for one in page.studies] if modes.flag_only else page.studies
    return Studies(studies=rows, cursor=page.cursor)


def known(modes: Modes, study: Study) -> Known | FlaggedImage:
    """All that may be shown of an image."""
    if not modes.flag_only:
        return Known(**dict(study))
    answers = [
        FlaggedAnswer(
            model_version=one.model_version,
            flagged=flagged(one.bucket),
            triage=Flags(bucket=one.bucket),
            snapshot=one.snapshot,
            at=one.at,
        )
        for one in study.predictions
    ]
    return FlaggedImage(image=study.image, predictions=answers, reviews=study.reviews, labels=study.labels)


def _flag(row: Listed) -> FlaggedStudy:
    shown = {name: getattr(row, name) for name in FlaggedStudy.model_fields if name != "flagged"}
    return FlaggedStudy(**shown, flagged=flagged(row.bucket))
