"""All checks of a build's sanity, in the order of their cost. "0 quarantined" must not look perfect over nonsense."""

from collections.abc import Callable, Sequence

from chestai.config.schema import Config
from chestai.lake.remark import Remark
from pipelines.spark.reconcile import ReconciledRows
from pipelines.spark.sanity.copies import count_copies
from pipelines.spark.sanity.films import Films
from pipelines.spark.sanity.flatness import count_flat
from pipelines.spark.sanity.share import Share
from pipelines.spark.sanity.shortcuts import find_shortcuts
from pipelines.spark.sanity.views import compare_views


def check_sanity(
    config: Config, rows: ReconciledRows, vocabulary: Sequence[str], tell: Callable[[str], None]
) -> tuple[Remark, ...]:
    """Check boxes, grey ranges, copies across splits, shortcuts and views against the limits of `config.sanity`.

    Args:
        tell: Is told in a word what is checked.

    Raises:
        UserError: A limit that stops a build is passed; the message has the numbers.
    """
    limits = config.sanity
    tell("checking boxes")
    remarks = count_boxes(rows).judge(limits)
    films = Films.gather(rows.gold, len(vocabulary))
    tell("checking grey ranges")
    remarks += count_flat(films, limits).judge(limits)
    tell("looking for copies")
    remarks += count_copies(films, limits).judge(limits)
    tell("looking for shortcuts")
    class_folders = {source.name for source in config.sources if source.format == "folders"}
    remarks += find_shortcuts(films, vocabulary, class_folders, limits)
    tell("comparing views")
    return (*remarks, *compare_views(films, limits))


def count_boxes(rows: ReconciledRows) -> Share:
    """Count the boxes of gold images that do not fit on them."""
    off, placed = (rows.boxes.where(condition).count() for condition in ("reason = 'box_off_image'", "in_gold"))
    return Share(
        off,
        off + placed,
        "boxes do not fit on their images",
        "boxes_off_image",
        "set source.box_pixels to the side of the images that they were drawn on, or correct the table",
    )
