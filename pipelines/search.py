"""Searches the images that `pipelines.index` has indexed: by an image, by a text, within filters.

    python -m pipelines.search image=film.dcm
    python -m pipelines.search image_id=00000001_000.png view=PA split=train
    python -m pipelines.search text='effusion without edema; female; AP; over 60' count=20 html=hits.html
    python -m pipelines.search image=film.png text='without edema' labelled=[Effusion] csv=hits.csv

- An image ranks by the cosine distance of embeddings, a text by the product of calibrated probabilities. With both, the
  image ranks, and the text's findings must be called so at the operating points.
- Left out: the content of the image itself, its near-duplicates, and, where they are known, images of its patient.
- A word that is no finding of the model, no sex, view or age, is told, and nothing is searched; with
  `index.image_text=DIR`, that model answers such a text, ranks by its own embeddings, and is named as the answerer.
- The findings of the image that is searched with are its tags; with `index.image_text`, those that this model sees.

Raises UserError: no such model, no index of it, nothing to search by, no such image, an image that cannot be scored, a
text outside the vocabulary, no such image-text model, a finding that the model does not know, a file that cannot be
written.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from rich.table import Table

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.config.schema import Config, Search
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.imaging.thumbnail import shrink
from chestai.lake.files import explain_unreadable, locate, read_bytes
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle, forward
from chestai.model.registry import RegisteredModel, Registry
from chestai.retrieval.filters import Filters, OperatingPoints
from chestai.retrieval.hit_rows import COLUMNS, describe_hit, list_called
from chestai.retrieval.image_text import ImageText
from chestai.retrieval.index_table import name_table
from chestai.retrieval.library import Library
from chestai.retrieval.query import Hit, Query, QueryImage
from chestai.retrieval.text_query import parse_text_query
from pipelines.scoring.hits_files import write_hits
from pipelines.scoring.ledger import Ledger

FILTERS = ("labelled", "called", "not_called", "bucket", "view", "sex", "split", "min_age", "max_age")


def run(config: Config, screen: Screen) -> list[Hit]:
    """Searches, prints the hits, and writes the files that the settings name."""
    settings, lake = config.search, Lake(config.lake)
    model = Registry(config.tracking, lake).load(settings.model)
    card = model.bundle.card
    points = {finding: card.thresholds.get(finding) for finding in card.findings}
    query = Query(filters=Filters(**{name: getattr(settings, name) for name in FILTERS}), count=settings.count)
    by_image = settings.image is not None or settings.image_id is not None
    if not by_image and settings.text is None and query.filters == Filters():
        raise UserError("nothing to search by: give text=, image=, image_id= or a filter such as labelled=[Effusion]")
    query, answerer = _read_text(config, screen, query, card.findings)
    digest = "" if answerer is None else answerer.digest
    if answerer is not None and lake.version(name_table(model.version, digest)) is None:
        folder = config.index.image_text
        raise UserError(f"{folder} has indexed no image: run `python -m pipelines.index index.image_text={folder}`")
    library = Library(lake, model.version, points, config.sanity.copy_correlation, config.index.engine, digest)
    facts = {"model": f"{model.name} version {model.version}"}
    if answerer is not None:
        facts["answered by"] = f"the image-text model {answerer.name}, which is not evaluated, not by findings"
    if by_image:
        image = _find_image(settings, lake, library, model, config.score.gate)
        query, facts = replace(query, image=image), facts | _tag_image(config, lake, model, points, image)
    started = time.monotonic()
    hits = library.search(query)
    facts |= {
        "library": f"{len(library):,} images",
        "searched in": f"{1000 * (time.monotonic() - started):.1f} ms",
    }
    table = Table(*COLUMNS)
    for rank, hit in enumerate(hits, 1):
        table.add_row(*describe_hit(rank, hit, points))
    screen.console.print(table)
    written = write_hits(settings, lake, model, points, hits, facts)
    screen.say("   ".join(f"{name}: {value}" for name, value in (facts | written).items()))
    return hits


def _read_text(
    config: Config, screen: Screen, query: Query, findings: tuple[str, ...]
) -> tuple[Query, ImageText | None]:
    """Adds what a text asks for, if there is one. With an image-text model, that one reads what the parser cannot."""
    settings, folder = config.search, config.index.image_text
    if settings.text is None:
        return query, None
    text = parse_text_query(settings.text, findings, settings.language)
    if text.outside and folder is not None and settings.image is None and settings.image_id is None:
        screen.say(f"not in this model's vocabulary: {', '.join(text.outside)}")
        answerer = ImageText.load(Path(folder))
        return replace(query, image=QueryImage(answerer.embed_texts([settings.text])[0])), answerer
    text.check()
    screen.say(f"read as {text}")
    filters = query.filters.merge(text.filters)
    return replace(query, present=text.present, absent=text.absent, filters=filters), None


def _tag_image(
    config: Config, lake: Lake, model: RegisteredModel, points: OperatingPoints, image: QueryImage
) -> dict[str, str]:
    """The findings of the image that is searched with: those that the image-text model sees, else those called."""
    where, columns = pc.field("sha256") == image.sha256, {finding: f"prob_{finding}" for finding in points}
    folder = config.index.image_text
    if folder is None:
        rows = lake.read(name_table(model.version), columns=[*columns.values()], where=where).to_pylist()
        if rows:
            return _list_tags({finding: rows[0][name] for finding, name in columns.items()}, points)
    path = config.search.image
    if path is None:  # an indexed image, by the first file that held it when it was scored
        path = lake.read(Ledger(lake, model.version).files, columns=["path"], where=where)["path"][0].as_py()
    try:
        data = read_bytes(locate(path))
        if folder is None:
            pixels = preprocess.load(data, model.bundle.card.size)
            values = model.bundle.predict([pixels]).probabilities[0].tolist()
            return _list_tags(dict(zip(points, values, strict=True)), points)
        tagger = ImageText.load(Path(folder))
        scores = tagger.tag(preprocess.load(data, tagger.size), [*points])
    except (OSError, ValueError, Unreadable):
        return {}  # an indexed image whose file is gone
    return {"tags": f"{_list_tags(scores, dict.fromkeys(points, 0.5))['tags']} (by {tagger.name}, not calibrated)"}


def _list_tags(probabilities: Mapping[str, float], points: OperatingPoints) -> dict[str, str]:
    return {"tags": ", ".join(list_called(probabilities, points)) or "none"}


def _find_image(settings: Search, lake: Lake, library: Library, model: RegisteredModel, gate: bool) -> QueryImage:
    if settings.image is not None and settings.image_id is not None:
        raise UserError("search.image and search.image_id are both set: give one of them")
    if settings.image_id is not None:
        return _find_indexed(settings.image_id, lake, library)
    path = locate(str(settings.image))
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:
        raise UserError(f"search.image={settings.image} cannot be read: {explain_unreadable(path, error)}") from error
    try:
        return library.find_content(hashlib.sha256(data).hexdigest()) or embed(data, model.bundle, gate)
    except Unreadable as error:
        raise UserError(f"search.image={settings.image} is not scored: {error.reason} ({error.detail})") from error


def _find_indexed(image_id: str, lake: Lake, library: Library) -> QueryImage:
    """The image of this ID; of several files with one content, the index names the first."""
    found = library.find_image(image_id)
    if found is None:
        ledger = Ledger(lake, library.version)
        files = lake.read(ledger.files, columns=["sha256"], where=pc.field("image_id") == image_id)
        contents = (library.find_content(sha256) for sha256 in files["sha256"].to_pylist() if sha256 is not None)
        found = next((content for content in contents if content is not None), None)
    if found is None:
        raise UserError(f"search.image_id={image_id} is not in the index of version {library.version}")
    return found


def embed(data: bytes, bundle: Bundle, gate: bool) -> QueryImage:
    """Makes a query of an image file.

    Args:
        gate: Whether the model's OOD detector may reject it.

    Raises:
        Unreadable: The file cannot be scored.
    """
    pixels = preprocess.load(data, bundle.card.size)
    rejection = bundle.ood_detector.check(pixels) if gate and bundle.ood_detector is not None else None
    if rejection is not None:
        raise Unreadable(rejection.reason, rejection.detail)
    vector = forward(bundle.network, pixels[None]).embedding[0].astype(np.float32)
    return QueryImage(vector, shrink(pixels).tobytes(), sha256=hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main("pipelines.search", run)
