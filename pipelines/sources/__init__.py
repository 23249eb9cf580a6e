"""Where images and labels come from. A source knows the form of its files; all else is the same for all."""

from typing import Protocol

from pyspark.sql import DataFrame, SparkSession

from chestai import config as conf
from pipelines.folder import Folder
from pipelines.sources.nih import Nih

# What `Source.entries` gives. `line` and `text` are the source row as it stands; `listed` is the official
# split (train_val or test; null: in no list); `reason` and `detail` say why a row is refused, and are null in
# a good one; `impossible_age` says that the row gives an age that cannot be, and `age_years` is null then.
ENTRY = """
    line int, text string, file string, image_id string, patient_id string, study_id string, age_years float,
    impossible_age boolean, sex string, view string, findings array<string>, targets array<float>,
    listed string, reason string, detail string
"""

# What `Source.boxes` gives: pixels of the image file, from its top left corner.
BOX = """
    line int, text string, image_id string, finding string, x float, y float, w float, h float,
    reason string, detail string
"""


class Source(Protocol):
    """A labelled folder of images, found whole and of the right form."""

    @property
    def folder(self) -> Folder:
        """Where it is."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The findings that its labels speak of, in the order of `targets`."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The files beside the images that a build is made from."""

    @property
    def has_lists(self) -> bool:
        """Whether it brings an official split."""

    @property
    def note(self) -> str:
        """What a person should know of how it was read."""

    def entries(self, spark: SparkSession) -> DataFrame:
        """Its label rows as `ENTRY`."""

    def boxes(self, spark: SparkSession) -> DataFrame:
        """Its drawn boxes as `BOX`, of any image."""


def find(source: conf.Source) -> Source:
    """The source that the configuration names, its inputs checked.

    Raises:
        UserError: what is missing or of the wrong form, and what to do.
    """
    return Nih.find(source)


def name(source: conf.Source) -> str:
    """What `gold/images` calls the source."""
    return "phantom" if source.synthetic else source.format
