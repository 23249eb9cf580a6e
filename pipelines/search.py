"""Searches the images that `pipelines.index` has indexed: by an image, by a text, within filters.

    python -m pipelines.search image=film.dcm
    python -m pipelines.search image_id=00000001_000.png view=PA split=train
    python -m pipelines.search text='effusion without edema; female; AP; over 60' count=20 html=hits.html
    python -m pipelines.search image=film.png text='without edema' labelled=[Effusion] csv=hits.csv

- An image ranks by the cosine distance of embeddings, a text by the product of calibrated probabilities. With both, the
  image ranks, and the text's findings must be called so at the operating points.
- Left out: the content of the image itself, its near-duplicates, and, where they are known, images of its patient.
- A word that is no finding of the model, no sex, view or age, is told, and nothing is searched.

Raises UserError: no such model, no index of it, nothing to search by, no such image, an image that cannot be scored, a
text outside the vocabulary, a finding that the model does not know, a file that cannot be written.
"""

import hashlib
import time
from dataclasses import replace

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
from chestai.retrieval.filters import Filters
from chestai.retrieval.hit_rows import COLUMNS, describe_hit
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
    if settings.text is not None:
        text = parse_text_query(settings.text, card.findings, settings.language)
        text.check()
        screen.say(f"read as {text}")
        filters = query.filters.merge(text.filters)
        query = replace(query, present=text.present, absent=text.absent, filters=filters)
    library = Library(lake, model.version, points, config.sanity.copy_correlation, config.index.engine)
    if settings.image is not None or settings.image_id is not None:
        query = replace(query, image=_find_image(settings, lake, library, model, config.score.gate))
    elif settings.text is None and query.filters == Filters():
        raise UserError("nothing to search by: give text=, image=, image_id= or a filter such as labelled=[Effusion]")
    started = time.monotonic()
    hits = library.search(query)
    facts = {
        "model": f"{model.name} version {model.version}",
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
