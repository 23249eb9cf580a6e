"""The gallery of a scored corpus: its most urgent images with their Grad-CAM, as one HTML file."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from chestai.clock import now
from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.imaging.heatmap import heatmap
from chestai.lake.files import read_bytes
from chestai.model.bundle import Bundle
from chestai.model.registry import RegisteredModel
from chestai.pages.gallery import GalleryImage, render_gallery, shrink
from pipelines.scoring.corpus import Corpus

GALLERY_BATCH = 8  # images of a forward pass


def render_gallery_page(scores: pa.Table, count: int, model: RegisteredModel, corpus: Corpus) -> str:
    """The gallery of the `count` most urgent images as HTML; its heatmaps are computed here, its numbers are scores."""
    scored = scores.filter(pc.is_null(scores["not_scored"]))
    first = scored.slice(0, count)
    paths = corpus.rows["path"].take(pc.index_in(first["image_id"], value_set=corpus.rows["image_id"]))
    images = list(_gallery_images(model.bundle, list(zip(first.to_pylist(), paths.to_pylist(), strict=True))))
    facts = {
        "model": f"{model.name} version {model.version}",
        "corpus": corpus.name,
        "images scored": f"{scored.num_rows:,}",
        "not scored": f"{scores.num_rows - scored.num_rows:,}",
        "written": f"{now():%Y-%m-%d %H:%M} UTC",
    }
    if len(images) < first.num_rows:
        facts["no longer readable"] = f"{first.num_rows - len(images)} of the most urgent"
    return render_gallery(
        images,
        f"The {len(images)} most urgent images",
        facts,
        synthetic_images=corpus.snapshot is not None and corpus.snapshot.synthetic,
        synthetic_model=model.bundle.card.synthetic,
    )


def _gallery_images(bundle: Bundle, rows: list[tuple[dict[str, Any], str]]) -> Iterator[GalleryImage]:
    for start in range(0, len(rows), GALLERY_BATCH):
        decoded = []
        for row, path in rows[start : start + GALLERY_BATCH]:
            try:
                decoded.append((row, preprocess.decode(read_bytes(path))))
            except (OSError, Unreadable):  # it changed since it was scored
                continue
        if not decoded:
            continue
        evidence = bundle.predict([preprocess.resize(grey, bundle.card.size) for _, grey in decoded]).evidence
        for (row, grey), planes in zip(decoded, evidence, strict=True):
            yield _gallery_image(bundle, row, shrink(grey), planes)


def _gallery_image(bundle: Bundle, row: Mapping[str, Any], small: preprocess.Grey, planes: Any) -> GalleryImage:
    names = bundle.card.findings
    probabilities = {finding: float(row[f"prob_{finding}"]) for finding in names}
    return GalleryImage(
        image_id=row["image_id"],
        bucket=row["bucket"],
        score=row["triage_score"],
        drivers=bundle.triage.find_drivers(list(probabilities.values()), names),
        probabilities=probabilities,
        thresholds=bundle.card.thresholds,
        grey=small,
        maps={finding: heatmap(plane, *small.shape) for finding, plane in zip(names, planes, strict=True)},
    )
