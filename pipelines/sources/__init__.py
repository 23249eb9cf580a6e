"""Where images and labels come from. A source knows the form of its files; all else is the same for all."""

from typing import Protocol

from pyspark.sql import DataFrame, SparkSession

from chestai import config as conf
from pipelines.folder import Folder
from pipelines.sources.nih import Nih


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
        """Its label rows.

        Columns: line int, text string (the row as it stands), file string (the image file's name), image_id string,
        patient_id string, study_id string, age_years float, impossible_age boolean (the row gives an age that cannot
        be; age_years is null then), sex string, view string, findings array<string>, targets array<float>, listed
        string (the official split, train_val or test; null: in no list), reason string, detail string (why the row is
        refused; null in a good one).
        """

    def boxes(self, spark: SparkSession) -> DataFrame:
        """Its drawn boxes, of any image.

        Columns: line int, text string (the row as it stands), image_id string, finding string, x, y, w, h float (pixels
        of the image file, from its top left corner), reason string, detail string (why the row is refused; or null).
        """


def find(source: conf.Source) -> Source:
    """The source that the configuration names, its inputs checked.

    Raises:
        UserError: what is missing or of the wrong form, and what to do.
    """
    return Nih.find(source)


def name(source: conf.Source) -> str:
    """What `gold/images` calls the source."""
    return "phantom" if source.synthetic else source.format
