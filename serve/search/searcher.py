"""Search at the endpoint: the library of the version that serves, opened when it is first asked for.

It is searched in threads of its own, and looked after by one more, so that scoring waits for none of it.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

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

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2  # a search takes all its time from one core

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class OpenLibrary:
    """The library of a model version, and the endpoint's own images if they are searched too."""

    library: Library
    own: OwnImages | None = None

    def __len__(self) -> int:
        """The number of images to search among; one that is in both counts twice."""
        return len(self.library) + sum(segment.facts.num_rows for segment in self._beside)

    def find_content(self, sha256: str) -> QueryImage | None:
        """The image with this content, to search for others like it; None if it is unknown. Blocks."""
        return self.library.find_content(sha256) or find_query_image(self._beside, "sha256", sha256)

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
        self._opened: OpenLibrary | None = None

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls what blocks, in the threads of searches."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(work, *args, **kwargs))

    def open(self, card: ModelCard) -> OpenLibrary:
        """Returns the library of a version; takes a while at the first time. Blocks.

        Raises:
            ApiError: 409, there is no index of this version, or it cannot be used.
            DBAPIError: The database is down.
        """
        with self._opening:
            if self._opened is None or self._opened.library.version != card.version:
                is_first, self._opened = self._opened is None, self._open(card)
                if is_first:
                    threading.Thread(target=self._follow, name="search-refresh", daemon=True).start()
            return self._opened

    def refresh(self) -> None:
        """Takes over what was indexed and scored since the library was opened; if that fails, it stays as it is."""
        opened = self._opened
        if opened is None:
            return
        try:
            with self._refreshing:
                opened.refresh()
        except Exception as error:  # the index is written anew, or lake or database are away: the next try may succeed
            log.warning("the index of version %d was not refreshed: %s", opened.library.version, type(error).__name__)

    def _open(self, card: ModelCard) -> OpenLibrary:
        config, lake = self._config, Lake(self._config.lake)
        points = {finding: card.thresholds.get(finding) for finding in card.findings}
        if lake.version(name_table(card.version)) is None:
            raise no_index_error(f"version {card.version} of the model has no index")
        try:
            library = Library(lake, card.version, points, config.sanity.copy_correlation, config.index.engine)
        except (UserError, OSError) as error:
            log.warning("the index of version %d cannot be used: %s", card.version, error)
            raise no_index_error(
                f"the index of version {card.version} cannot be used, see the endpoint's log"
            ) from error
        keeps = config.serve.search.own_images
        return OpenLibrary(library, OwnImages(self._database, card.version, card.findings) if keeps else None)

    def _follow(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._config.serve.search.refresh_seconds):
            self.refresh()


def no_index_error(detail: str) -> ApiError:
    """Creates the error for a version whose index is missing."""
    return ApiError(409, "no_index", f"{detail}: run `python -m pipelines.index`")
