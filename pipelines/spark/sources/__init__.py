"""Sources of images and labels. A source knows the form of its files; everything else is common to all sources.

One module per source (`nih`, `chexpert`, `folders`, `dicom`), a room for that of any label table; they share `tables`.
"""

from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from chestai.config import schema
from pipelines.data.files import InputFolder
from pipelines.spark.sources.chexpert import Chexpert
from pipelines.spark.sources.dicom import Dicom
from pipelines.spark.sources.folders import Folders
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_table.source import LabelTable
from pipelines.spark.sources.nih import Nih


class Source(Protocol):
    """A labelled folder of images whose form has been checked."""

    @property
    def folder(self) -> InputFolder:
        """The folder."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The findings it labels, spelt as in `chestai.labels.findings`, in the order of `targets`."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Files besides the images that a build depends on: relative to the folder, or absolute."""

    @property
    def has_official_split(self) -> bool:
        """Whether it comes with a split of its own."""

    @property
    def keeps_missing(self) -> bool:
        """Whether label rows whose image file is absent stay in gold."""

    @property
    def note(self) -> str:
        """One line for the user on how the source was read."""

    @property
    def guesses(self) -> tuple[Guess, ...]:
        """What was guessed about it."""

    def list_images(self) -> pa.Table:
        """Return its image files as `pipelines.data.files.LISTING`."""

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Return its label rows as `tables.ENTRY_COLUMNS`."""

    def read_boxes(self, spark: SparkSession) -> DataFrame:
        """Return the bounding boxes of its images as `tables.BOX_COLUMNS`."""


SOURCE_TYPES = {
    schema.Nih: Nih,
    schema.Chexpert: Chexpert,
    schema.Folders: Folders,
    schema.Dicom: Dicom,
    schema.Table: LabelTable,
}


def open_source(source: schema.Source) -> Source:
    """Check the inputs of a configured source.

    Raises:
        UserError: An input is missing or malformed; the message says what to do.
    """
    opened: Source = SOURCE_TYPES[type(source)].find(source)  # type: ignore[attr-defined]
    return opened
