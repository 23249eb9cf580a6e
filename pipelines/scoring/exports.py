"""Writes the scores of a corpus as files for people: CSV, Parquet, triage worklist, gallery of the most urgent."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chestai.clock import now
from chestai.config.schema import Score
from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.imaging.heatmap import heatmap, is_shown
from chestai.lake.atomic_write import atomic_write
from chestai.lake.csv_cells import write_csv
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import RegisteredModel
from chestai.pages.gallery import GalleryImage, render_gallery, shrink
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import read_scores

WORKLIST = ("rank", "image_id", "bucket", "triage_score", "driven_by", "findings", "not_scored")
GALLERY_BATCH = 8  # images of a forward pass


def write_exports(settings: Score, out: Lake, model: RegisteredModel, corpus: Corpus) -> dict[str, str]:
    """Writes the files that the settings name, each at a path or URI; returns their names by kind.

    `csv`, `parquet`: one row per file of the corpus, see `read_scores`. `worklist`: the queue as CSV, see `worklist`.
    `gallery`: one HTML file of the `gallery_images` most urgent images with their Grad-CAM.
    """
    named = {name: getattr(settings, name) for name in ("csv", "parquet", "worklist", "gallery")}
    named = {name: str(path) for name, path in named.items() if path is not None}
    if not named:
        return {}
    scores = read_scores(out, model.version, corpus.rows)
    for name, path in named.items():
        with atomic_write(path) as part:
            if name == "csv":
                write_csv(scores, part)
            elif name == "parquet":
                pq.write_table(scores, part)
            elif name == "worklist":
                write_csv(build_worklist(scores, model.bundle), part)
            else:
                part.write_text(render_gallery_page(scores, settings.gallery_images, model, corpus))
    return named


def build_worklist(scores: pa.Table, bundle: Bundle) -> pa.Table:
    """Builds the queue: the columns `WORKLIST`, one row per file.

    Args:
        scores: Of `read_scores`, most urgent first. A file without a score has no rank and comes last, with the reason:
            somebody must look at it.

    Returns:
        `driven_by`: the findings behind the score with weight * probability, greatest first. `findings`: those that
        reach their operating points.
    """
    names, points = bundle.card.findings, bundle.card.thresholds
    added: list[dict[str, Any]] = []
    for rank, row in enumerate(scores.select([f"prob_{finding}" for finding in names]).to_pylist(), 1):
        probabilities = list(row.values())
        if None in probabilities:
            added.append({})
            continue
        drivers = bundle.triage.find_drivers(probabilities, names)
        pairs = zip(names, probabilities, strict=True)
        added.append(
            {
                "rank": rank,
                "driven_by": ", ".join(f"{finding} {weighted:.2f}" for finding, weighted in drivers),
                "findings": ", ".join(finding for finding, value in pairs if is_shown(value, points.get(finding))),
            }
        )
    schema = pa.schema({"rank": pa.int64(), "driven_by": pa.string(), "findings": pa.string()})
    more = pa.Table.from_pylist(added, schema)
    queue = scores.select(["image_id", "bucket", "triage_score", "not_scored"])
    return pa.table({name: (more if name in schema.names else queue)[name] for name in WORKLIST})


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
