"""Where images and labels come from. A source knows the form of its files; all else is the same for all.

One source a file: `nih`, `chexpert`, `folders`, `dicom`; `tables` is what they share.
"""

from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from chestai.config import schema
from pipelines.data.files import InputFolder
from pipelines.spark.sources.chexpert import Chexpert
from pipelines.spark.sources.dicom import Dicom
from pipelines.spark.sources.folders import Folders
from pipelines.spark.sources.nih import Nih


class Source(Protocol):
    """A labelled folder of images, found whole and of the right form."""

    @property
    def folder(self) -> InputFolder:
        """Where it is."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The findings that its labels speak of, spelt as `chestai.labels.findings` does, in the order of `targets`."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The files that a build is made from besides the images: relative to the folder, or absolute."""

    @property
    def has_lists(self) -> bool:
        """Whether it brings an official split."""

    @property
    def keeps_missing(self) -> bool:
        """Whether entries whose file is absent stay in gold."""

    @property
    def note(self) -> str:
        """What a person should know of how it was read."""

    def listing(self) -> pa.Table:
        """Its image files, as `pipelines.data.files.LISTING`."""

    def entries(self, spark: SparkSession) -> DataFrame:
        """Its label rows, in the columns of `tables.ENTRY`."""

    def boxes(self, spark: SparkSession) -> DataFrame:
        """Its drawn boxes, of any image, in the columns of `tables.BOX`."""


FORMATS = {schema.Nih: Nih, schema.Chexpert: Chexpert, schema.Folders: Folders, schema.Dicom: Dicom}


def find(source: schema.Source) -> Source:
    """The source that the configuration names, its inputs checked.

    Raises:
        UserError: what is missing or of the wrong form, and what to do.
    """
    found: Source = FORMATS[type(source)].find(source)  # type: ignore[attr-defined]
    return found
