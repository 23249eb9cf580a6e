"""The scores of a corpus as files for people: a CSV, Parquet, the triage worklist, a gallery of the most urgent."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from chestai.clock import now
from chestai.config.schema import Score
from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.imaging.heatmap import heatmap, is_shown
from chestai.lake.atomic_write import atomic_write
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import RegisteredModel
from chestai.pages.gallery import GalleryImage, render_gallery, shrink
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import read_scores

WORKLIST = ("rank", "image_id", "bucket", "triage_score", "driven_by", "findings", "not_scored")
AT_ONCE = 8  # images of the gallery that are forwarded together


def write(wanted: Score, out: Lake, model: RegisteredModel, corpus: Corpus) -> dict[str, str]:
    """Write the files that are named; give what was written, by kind.

    `csv`, `parquet`: a row a file of the corpus, see `read_scores`. `worklist`: the queue as a CSV, see `worklist`.
    `gallery`: one HTML file of the `gallery_images` most urgent images with their Grad-CAM. Each at a path or a URI.
    """
    named = {name: getattr(wanted, name) for name in ("csv", "parquet", "worklist", "gallery")}
    named = {name: str(path) for name, path in named.items() if path is not None}
    if not named:
        return {}
    scores = read_scores(out, model.version, corpus.rows)
    for name, path in named.items():
        with atomic_write(path) as part:
            if name == "csv":
                pacsv.write_csv(scores, part)
            elif name == "parquet":
                pq.write_table(scores, part)
            elif name == "worklist":
                pacsv.write_csv(worklist(scores, model.bundle), part)
            else:
                part.write_text(page(scores, wanted.gallery_images, model, corpus))
    return named


def worklist(scores: pa.Table, bundle: Bundle) -> pa.Table:
    """The queue, with the columns `WORKLIST`: a row a file.

    Args:
        scores: of `read_scores`, so most urgent first. What could not be scored has no rank and comes last, with the
            reason: somebody must look at it.

    Returns:
        driven_by: findings behind the score with weight * probability, greatest first. findings: those that reach their
        operating points.
    """
    names, points = bundle.card.findings, bundle.card.thresholds
    added: list[dict[str, Any]] = []
    for rank, row in enumerate(scores.select([f"prob_{finding}" for finding in names]).to_pylist(), 1):
        probabilities = list(row.values())
        if None in probabilities:
            added.append({})
            continue
        drivers = bundle.triage.drivers(probabilities, names)
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


def page(scores: pa.Table, most: int, model: RegisteredModel, corpus: Corpus) -> str:
    """The gallery as HTML. Its maps are computed here; its numbers are those of the scores."""
    scored = scores.filter(pc.is_null(scores["not_scored"]))
    first = scored.slice(0, most)
    paths = corpus.rows["path"].take(pc.index_in(first["image_id"], value_set=corpus.rows["image_id"]))
    cases = list(_cases(model.bundle, list(zip(first.to_pylist(), paths.to_pylist(), strict=True))))
    facts = {
        "model": f"{model.name} version {model.version}",
        "corpus": corpus.name,
        "images scored": f"{scored.num_rows:,}",
        "not scored": f"{scores.num_rows - scored.num_rows:,}",
        "written": f"{now():%Y-%m-%d %H:%M} UTC",
    }
    if len(cases) < first.num_rows:
        facts["no longer readable"] = f"{first.num_rows - len(cases)} of the most urgent"
    return render_gallery(
        cases,
        f"The {len(cases)} most urgent images",
        facts,
        synthetic_images=corpus.snapshot is not None and corpus.snapshot.synthetic,
        synthetic_model=model.bundle.card.synthetic,
    )


def _cases(bundle: Bundle, rows: list[tuple[dict[str, Any], str]]) -> Iterator[GalleryImage]:
    for at in range(0, len(rows), AT_ONCE):
        read = []
        for row, path in rows[at : at + AT_ONCE]:
            try:
                read.append((row, preprocess.decode(read_bytes(path))))
            except (OSError, Unreadable):  # since it was scored
                continue
        if not read:
            continue
        evidence = bundle.predict([preprocess.resize(grey, bundle.card.size) for _, grey in read]).evidence
        for (row, grey), planes in zip(read, evidence, strict=True):
            yield _case(bundle, row, shrink(grey), planes)


def _case(bundle: Bundle, row: Mapping[str, Any], small: preprocess.Grey, planes: Any) -> GalleryImage:
    names = bundle.card.findings
    probabilities = {finding: float(row[f"prob_{finding}"]) for finding in names}
    return GalleryImage(
        image_id=row["image_id"],
        bucket=row["bucket"],
        score=row["triage_score"],
        drivers=bundle.triage.drivers(list(probabilities.values()), names),
        probabilities=probabilities,
        thresholds=bundle.card.thresholds,
        grey=small,
        maps={finding: heatmap(plane, *small.shape) for finding, plane in zip(names, planes, strict=True)},
    )
