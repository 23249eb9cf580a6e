"""Sets of one folder a class: root/Normal/*.png, root/Pneumonia/*.png, also below train/, val/ and test/."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import NO_FINDING, canonical, merged, targets
from pipelines.data.files import InputFolder
from pipelines.spark.sources.tables import ENTRY, folder_of, no_boxes
from pipelines.spark.splits import TEST, TRAIN_VAL

# Folders that name a split, in lower case, and folders of drawn lungs beside the images that they are drawn on.
SPLIT_FOLDERS = {"train": TRAIN_VAL, "val": TRAIN_VAL, "valid": TRAIN_VAL, "validation": TRAIN_VAL, "test": TEST}
MASKS = "masks"


@dataclass(frozen=True)
class Place:
    """Where an image lies: its path, its class folder (None in no such) and the split that its folders name."""

    path: str
    folder: str | None
    listed: str | None

    @staticmethod
    def of(path: str) -> "Place":
        """The class folder is the outermost that names no split."""
        folders = path.split("/")[:-1]
        splits = [SPLIT_FOLDERS[folder.lower()] for folder in folders if folder.lower() in SPLIT_FOLDERS]
        classes = [folder for folder in folders if folder.lower() not in SPLIT_FOLDERS]
        return Place(path, next(iter(classes), None), next(iter(splits), None))


@dataclass(frozen=True)
class Folders:
    """A set of one folder a class, found by `find`.

    name: of the source, in front of its identifiers. images: `pipelines.data.files.LISTING`, without masks. places: by
    key, where the images with a class lie: one place, or with labels=multilabel all those of a file name. classes:
    the finding of each class folder, None for one without finding. pattern: finds the patient in a path.
    """

    folder: InputFolder
    name: str
    images: pa.Table
    places: Mapping[str, list[Place]]
    classes: Mapping[str, str | None]
    pattern: re.Pattern[str] | None
    vocabulary: tuple[str, ...]
    has_lists: bool
    note: str
    tables: tuple[str, ...] = ()
    keeps_missing: bool = False

    @staticmethod
    def find(source: schema.Folders) -> "Folders":
        """List the images and look at the folders that they are in.

        Raises:
            UserError: there is no such folder; see `read_pattern` and `read_classes` for the rest.
        """
        pattern = read_pattern(source.patient_pattern)
        folder = folder_of(source.root, "/data/folders")
        images, masks = _without_masks(folder.images())
        paths = images["path"].to_pylist()
        keys = [PurePosixPath(path).name for path in paths] if source.labels == "multilabel" else paths
        images = images.set_column(images.schema.get_field_index("key"), "key", pa.array(keys, pa.string()))

        everywhere = [Place.of(path) for path in paths]
        found = {place.folder for place in everywhere if place.folder is not None}
        classes = read_classes(source, found) if paths else {}
        places = defaultdict(list)
        for key, place in zip(keys, everywhere, strict=True):
            if place.folder in classes:
                places[key].append(place)

        splits = {place.listed for of_key in places.values() for place in of_key}
        has_lists = TEST in splits and None not in splits
        vocabulary = merged([[finding for finding in classes.values() if finding]])
        notes = [f"{source.labels}: " + ", ".join(f"{name} = {classes[name] or 'no finding'}" for name in classes)]
        if masks:
            notes.append(f"{masks:,} files in folders named {MASKS} are not read")
        if splits - {None} and not has_lists:
            notes.append("split folders are not kept: one must be test and every image in one")
        if pattern is None:
            notes.append("each image its own patient: the split cannot keep patients apart")
        return Folders(folder, source.name, images, places, classes, pattern, vocabulary, has_lists, "; ".join(notes))

    def listing(self) -> pa.Table:
        """Images by their path, or with labels=multilabel by their file name, as `find` saw them."""
        return self.images

    def entries(self, spark: SparkSession) -> DataFrame:
        """What the folders say of each image in a class, as `pipelines.spark.sources.tables.ENTRY`."""
        rows = [self._entry(line, key, places) for line, (key, places) in enumerate(self.places.items(), 1)]
        return spark.createDataFrame(rows, ENTRY)  # type: ignore[type-var]  # takes dicts, its stubs do not

    def boxes(self, spark: SparkSession) -> DataFrame:
        """None, as `pipelines.spark.sources.tables.BOX`."""
        return no_boxes(spark)

    def _entry(self, line: int, key: str, places: list[Place]) -> dict[str, Any]:
        """The row of one image, from all the places where it lies."""
        found = {self.classes[place.folder] for place in places if place.folder is not None}
        findings = [finding for finding in self.vocabulary if finding in found]
        splits = {place.listed for place in places} if self.has_lists else {None}
        image_id = f"{self.name}:{key.replace('/', ':')}"
        patients = {self._patient(place.path) for place in places} if self.pattern else {image_id}
        problem = None
        if findings and None in found:
            problem = "in a class folder without finding and in another"
        elif len(splits) > 1:
            problem = "in folders of test and of another split"
        elif None in patients:
            problem = "patient_pattern finds no patient in the path"
        elif len(patients) > 1:
            problem = "patient_pattern finds several patients in its paths"
        path = places[0].path
        return {
            "line": line,
            "text": path,
            "key": key,
            "image_id": image_id,
            "patient_id": next(iter(patients)) if len(patients) == 1 else None,
            "study_id": image_id,
            "impossible_age": False,
            "findings": findings,
            "targets": targets(findings, self.vocabulary),
            "uncertain": [],
            "listed": next(iter(splits)) if len(splits) == 1 else None,
            "reason": "entry_unparsable" if problem else None,
            "detail": f"{path}: {problem}" if problem else None,
        }

    def _patient(self, path: str) -> str | None:
        match = self.pattern.search(path) if self.pattern else None
        return f"{self.name}:{match[1]}" if match and match[1] else None


def read_pattern(text: str | None) -> re.Pattern[str] | None:
    """`source.patient_pattern`, compiled.

    Raises:
        UserError: it is no regular expression, or has no group.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"source.patient_pattern={text} is no regular expression: {error}") from error
    if not pattern.groups:
        raise UserError(f"source.patient_pattern={text} has no group: put the patient's part in parentheses")
    return pattern


def read_classes(source: schema.Folders, found: Collection[str]) -> dict[str, str | None]:
    """The finding of each class folder, None for one without finding: `source.classes`, or all folders found.

    Raises:
        UserError: a class that no folder has, or no finding among them.
    """
    folders = ", ".join(sorted(found)) or "no class folders"
    named = source.classes if source.classes is not None else {folder: folder for folder in sorted(found)}
    unknown = [folder for folder in named if folder not in found]
    if unknown:
        raise UserError(f"source.classes names the folder {unknown[0]}, but source.root={source.root} has {folders}")
    findings = {folder: canonical(name) if name else NO_FINDING for folder, name in named.items()}
    if set(findings.values()) <= {NO_FINDING}:
        raise UserError(
            f"source.root={source.root} has {folders}, and none stands for a finding: give source.classes, "
            "such as {normal: null, pneumonia: Pneumonia}"
        )
    return {folder: None if finding == NO_FINDING else finding for folder, finding in findings.items()}


def _without_masks(images: pa.Table) -> tuple[pa.Table, int]:
    """The images that lie in no folder of masks, and how many do."""
    kept = [MASKS not in path.lower().split("/")[:-1] for path in images["path"].to_pylist()]
    return images.filter(pa.array(kept, pa.bool_())), kept.count(False)
