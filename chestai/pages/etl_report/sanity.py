"""What the checks of a build's sanity say, with the images that they name."""

from chestai.lake.remark import Remark
from chestai.lake.snapshot import Snapshot
from chestai.pages.etl_report.gold import GoldTables
from chestai.pages.etl_report.thumbnails import select_named
from chestai.pages.page import Gallery, Note, Table

MAX_TITLE = 60  # characters of a gallery's title


def build_sanity(snapshot: Snapshot, gold: GoldTables) -> list[Note | Table | Gallery]:
    """All remarks, those that warn first, and a gallery for each that names images."""
    remarks = sorted(snapshot.remarks, key=lambda remark: not remark.warns)
    if not remarks:
        return [Note("The checks found nothing.")]
    rows = [["warning" if remark.warns else "", remark.text] for remark in remarks]
    table = Table("Found, and the limit that accepts it", ["", ""], rows, prose=True)
    return [table, *(_build_gallery(remark, gold) for remark in remarks if remark.examples)]


def _build_gallery(remark: Remark, gold: GoldTables) -> Gallery:
    """The images of a remark; those that belong together stand side by side."""
    names = [name for group in remark.examples for name in group]
    paired = any(len(group) > 1 for group in remark.examples)
    note = "pairs: an image, then the one that it is a copy of" if paired else ""
    return Gallery(f"{remark.text[:MAX_TITLE].rsplit(' ', 1)[0]} …", select_named(gold.images, names), note)
