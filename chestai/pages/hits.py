"""The hits of a search as one HTML file that loads nothing else: a table, then the images."""

from collections.abc import Mapping, Sequence

from chestai.pages.page import SYNTHETIC_IMAGES, SYNTHETIC_MODEL, Gallery, Page, Picture, Section, Table, render_html
from chestai.retrieval.filters import OperatingPoints
from chestai.retrieval.hit_rows import COLUMNS, describe_hit
from chestai.retrieval.query import Hit


def render_hits(
    hits: Sequence[tuple[Hit, str | None]],
    points: OperatingPoints,
    facts: Mapping[str, str],
    *,
    synthetic_images: bool,
    synthetic_model: bool,
) -> str:
    """Render hits as HTML, the best first.

    Args:
        hits: Each with its image as a `data:` URI; None if it cannot be read.
        points: Of the model.
        facts: Name -> value, shown at the top.
        synthetic_images, synthetic_model: As of `chestai.pages.gallery.render_gallery`.
    """
    rows = [describe_hit(rank, hit, points) for rank, (hit, _) in enumerate(hits, 1)]
    pictures = [_make_picture(row, image) for row, (_, image) in zip(rows, hits, strict=True)]
    sections = [
        Section("hits", "Hits", [Table("The best first", COLUMNS, rows, prose=True)]),
        Section("images", "Images", [Gallery("The same, as images", pictures)]),
    ]
    banner = SYNTHETIC_IMAGES if synthetic_images else SYNTHETIC_MODEL if synthetic_model else ""
    subtitle = f"{len(rows)} {'hit' if len(rows) == 1 else 'hits'}"
    return render_html(Page("Search", subtitle, list(facts.items()), banner, sections))


def _make_picture(row: Sequence[str], image: str | None) -> Picture:
    said = dict(zip(COLUMNS, row, strict=True))
    values = [f"{name} {said[name]}" for name in ("distance", "score") if said[name]]
    lines = [f"{said['rank']}. {said['image']}", ", ".join(values), said["labelled"]]
    return Picture(image, f"hit {said['rank']}", [line for line in lines if line])
