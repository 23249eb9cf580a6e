"""Search at the endpoint: the library of the version that serves, opened when it is first asked for.

With `index.image_text` there is another beside it, of that model's embeddings of the same images. Libraries are
searched in threads of their own, and looked after by one more, so that scoring waits for none of it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.retrieval.index_table import name_table
from chestai.retrieval.library import Library, find_query_image
from chestai.retrieval.query import Hit, Query, QueryImage
from chestai.retrieval.segment import Segment
from serve.db.database import Database
from serve.problems import ApiError
from serve.schemas.operations import ModelCard
from serve.search.own_images import OwnImages

if TYPE_CHECKING:
    from chestai.retrieval.image_text import ImageText

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2  # a search takes all its time from one core

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class OpenLibrary:
    """The library of a model version, and the endpoint's own images if they are searched too.

    answerer: The image-text model whose embeddings the library has; None: those of the model itself.
    """

    library: Library
    own: OwnImages | None = None
    answerer: "ImageText | None" = None

    def __len__(self) -> int:
        """The number of images to search among; one that is in both counts twice."""
        return len(self.library) + sum(segment.facts.num_rows for segment in self._beside)

    def find_content(self, sha256: str) -> QueryImage | None:
        """The image with this content, to search for others like it; None if it is unknown. Blocks."""
        return self.library.find_content(sha256) or find_query_image(self._beside, "sha256", sha256)

    def find_text(self, text: str) -> QueryImage:
        """The text as the image-text model embeds it, to search for images near it. Blocks."""
        assert self.answerer is not None, "a library of an image-text model's embeddings"
        return QueryImage(self.answerer.embed_texts([text])[0])

    def search(self, query: Query) -> list[Hit]:
        """Finds the best hits. Blocks. Raises UserError as `Library.search`."""
        return self.library.search(query, self._beside)

    def is_own(self, sha256: str) -> bool:
        """Whether an image is one of the endpoint's own."""
        return self.own is not None and sha256 in self.own

    def refresh(self) -> None:
        """Takes over what was indexed and scored since. Blocks."""
        self.library.refresh()
        if self.own is not None:
            self.own.refresh()

    @property
    def _beside(self) -> list[Segment]:
        segment = None if self.own is None else self.own.segment
        return [] if segment is None else [segment]


class Searcher:
    """Opens the library of the served version, and keeps it up to date."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config, self._database = config, database
        self._executor = ThreadPoolExecutor(THREADS, "search")
        self._opening, self._refreshing = threading.Lock(), threading.Lock()
        self._opened: dict[bool, OpenLibrary] = {}  # by whether it is the image-text model's

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls what blocks, in the threads of searches."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))

    def open(self, card: ModelCard, by_image_text: bool = False) -> OpenLibrary:
        """Returns the library of a version; takes a while at the first time. Blocks.

        Args:
            by_image_text: The library of the image-text model's embeddings.

        Raises:
            ApiError: 409, there is no such index of this version, or it cannot be used.
            DBAPIError: The database is down.
        """
        with self._opening:
            kept = {kind: one for kind, one in self._opened.items() if one.library.version == card.version}
            if by_image_text not in kept:
                kept[by_image_text] = self._open_image_text(card) if by_image_text else self._open_own(card)
            if not self._opened:
                threading.Thread(target=self._follow, name="search-refresh", daemon=True).start()
            self._opened = kept
            return kept[by_image_text]

    def refresh(self) -> None:
        """Takes over what was indexed and scored since a library was opened; if that fails, it stays as it is."""
        with self._refreshing:
            for opened in self._opened.values():
                try:
                    opened.refresh()
                except Exception as error:  # the index is written anew, or lake or database are away: tried again later
                    version, name = opened.library.version, type(error).__name__
                    log.warning("the index of version %d was not refreshed: %s", version, name)

    def _open_own(self, card: ModelCard) -> OpenLibrary:
        keeps = self._config.serve.search.own_images
        library = self._open_library(card)
        return OpenLibrary(library, OwnImages(self._database, card.version, card.findings) if keeps else None)

    def _open_image_text(self, card: ModelCard) -> OpenLibrary:
        from chestai.retrieval.image_text import ImageText  # an endpoint without it loads no torch here

        folder = Path(str(self._config.index.image_text))
        try:
            answerer = ImageText.load(folder)
        except UserError as error:
            log.warning("%s", error)
            raise no_index_error("the image-text model cannot be used, see the endpoint's log", folder) from error
        return OpenLibrary(self._open_library(card, answerer.digest, folder), answerer=answerer)

    def _open_library(self, card: ModelCard, embedder: str = "", folder: Path | None = None) -> Library:
        config, lake = self._config, Lake(self._config.lake)
        points = {finding: card.thresholds.get(finding) for finding in card.findings}
        version = f"version {card.version} of the model"
        whose = version if folder is None else f"the image-text model for {version}"
        if lake.version(name_table(card.version, embedder)) is None:
            raise no_index_error(f"{whose} has no index", folder)
        correlation, engine = config.sanity.copy_correlation, config.index.engine
        try:
            return Library(lake, card.version, points, correlation, engine, embedder)
        except (UserError, OSError) as error:
            log.warning("the index of %s cannot be used: %s", whose, error)
            raise no_index_error(f"the index of {whose} cannot be used, see the endpoint's log", folder) from error

    def _follow(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._config.serve.search.refresh_seconds):
            self.refresh()


def no_index_error(detail: str, folder: Path | None) -> ApiError:
    """Creates the error for a missing index. folder: of the image-text model whose index it would be."""
    setting = "" if folder is None else " index.image_text=DIR"
    return ApiError(409, "no_index", f"{detail}: run `python -m pipelines.index{setting}`")
