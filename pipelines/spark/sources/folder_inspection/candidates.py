"""Which source reads a folder: each is tried, from the most particular to the most general."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from chestai.config import load as conf
from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import KNOWN_FINDINGS
from pipelines.spark import sources
from pipelines.spark.sources.folders import Folders
from pipelines.spark.sources.label_table.source import LabelTable

NAMES = (
    *("mimic", "padchest", "chexpert-plus", "openi", "vindr", "vinbigdata", "rsna", "siim", "nih-experts"),
    *("nih", "chexpert-visual", "chexpert", "chexpert-test", "covidx", "tuberculosis"),
    *("covid-qu", "kaggle-pneumonia", "dicom", "folders"),
)
MIN_READ = 0.5  # of the image files


@dataclass(frozen=True)
class Candidate:
    """A source that reads a folder.

    Attributes:
        images: Image files that it sees.
        read: Those that have a label row, None if only a build tells.
    """

    name: str
    source: sources.Source
    images: int
    read: int | None

    @property
    def fits(self) -> bool:
        """Whether the source reads most of the images, and its labels are more than the name of a folder."""
        if isinstance(self.source, Folders):
            named = {*self.source.vocabulary} & {*KNOWN_FINDINGS}
            if not named and (len(self.source.classes) < 2 or None not in self.source.classes.values()):
                return False
        return self.images > 0 and (self.read is None or self.read >= MIN_READ * self.images)


def find_candidates(root: str) -> Iterator[Candidate]:
    """Try all known sources on a folder and yield those that fit."""
    for name in NAMES:
        candidate = try_source(name, root)
        if candidate is not None and candidate.fits:
            yield candidate


def try_source(name: str, root: str) -> Candidate | None:
    """Open a folder as a source; None if it is of another form."""
    try:
        source = sources.open_source(_load_settings(name).model_copy(update={"root": root}))
    except UserError:
        return None
    listing = source.list_images()
    return Candidate(name, source, listing.num_rows, _count_read(source, listing["key"].to_pylist()))


@cache
def _load_settings(name: str) -> schema.Source:
    return conf.load([f"source={name}"]).source


def _count_read(source: sources.Source, keys: list[str | None]) -> int | None:
    if isinstance(source, Folders):
        return sum(key in source.locations for key in keys)
    if isinstance(source, LabelTable) and None not in keys:
        named = {*source.entries["key"].to_pylist()}
        return sum(key in named for key in keys)
    return None
