"""The source of one folder per class: root/Normal/*.png, root/Pneumonia/*.png, also below train/, val/ and test/."""

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
from chestai.labels.findings import NO_FINDING, canonicalise, encode_targets, merge_vocabularies
from pipelines.data.files import InputFolder
from pipelines.spark.sources.tables import ENTRY_COLUMNS, WithoutBoxes, open_root
from pipelines.spark.splits import TEST, TRAIN_VAL

# Folders that name a split, in lower case; and folders of lung masks next to the images.
SPLIT_FOLDERS = {"train": TRAIN_VAL, "val": TRAIN_VAL, "valid": TRAIN_VAL, "validation": TRAIN_VAL, "test": TEST}
MASKS = "masks"


@dataclass(frozen=True)
class ImageLocation:
    """Where an image lies: its path, its class folder (None without) and the split that its folders name."""

    path: str
    folder: str | None
    listed: str | None

    @staticmethod
    def parse(path: str) -> "ImageLocation":
        """Read class and split from a path. The class folder is the outermost that does not name a split."""
        folders = path.split("/")[:-1]
        splits = [SPLIT_FOLDERS[folder.lower()] for folder in folders if folder.lower() in SPLIT_FOLDERS]
        classes = [folder for folder in folders if folder.lower() not in SPLIT_FOLDERS]
        return ImageLocation(path, next(iter(classes), None), next(iter(splits), None))


@dataclass(frozen=True)
class Folders(WithoutBoxes):
    """A set of one folder per class, opened by `find`.

    Attributes:
        name: Of the source; a prefix of its image and patient IDs.
        images: `pipelines.data.files.LISTING`, without masks.
        locations: By key, where the images with a class lie; several only with labels=multilabel.
        classes: The finding of each class folder, None for one without finding.
        pattern: Finds the patient in a path; None makes each image its own patient.
    """

    folder: InputFolder
    name: str
    images: pa.Table
    locations: Mapping[str, list[ImageLocation]]
    classes: Mapping[str, str | None]
    pattern: re.Pattern[str] | None
    vocabulary: tuple[str, ...]
    has_official_split: bool
    note: str
    tables: tuple[str, ...] = ()
    keeps_missing: bool = False

    @staticmethod
    def find(source: schema.Folders) -> "Folders":
        """List the images and read their classes and splits from their paths.

        Raises:
            UserError: No such folder, a bad pattern (see `compile_pattern`) or bad classes (see `map_classes`).
        """
        pattern = compile_pattern(source.patient_pattern)
        folder = open_root(source.root, "/data/folders")
        images, masks = _without_masks(folder.list_images())
        paths = images["path"].to_pylist()
        keys = [PurePosixPath(path).name for path in paths] if source.labels == "multilabel" else paths
        images = images.set_column(images.schema.get_field_index("key"), "key", pa.array(keys, pa.string()))

        parsed = [ImageLocation.parse(path) for path in paths]
        class_folders = {location.folder for location in parsed if location.folder is not None}
        classes = map_classes(source, class_folders) if paths else {}
        locations = defaultdict(list)
        for key, location in zip(keys, parsed, strict=True):
            if location.folder in classes:
                locations[key].append(location)

        splits = {location.listed for of_key in locations.values() for location in of_key}
        has_official_split = TEST in splits and None not in splits
        vocabulary = merge_vocabularies([[finding for finding in classes.values() if finding]])
        notes = [f"{source.labels}: " + ", ".join(f"{name} = {classes[name] or 'no finding'}" for name in classes)]
        if masks:
            notes.append(f"{masks:,} files in folders named {MASKS} are not read")
        if splits - {None} and not has_official_split:
            notes.append("split folders are not kept: one must be test and every image in one")
        if pattern is None:
            notes.append("each image its own patient: the split cannot keep patients apart")
        note = "; ".join(notes)
        return Folders(folder, source.name, images, locations, classes, pattern, vocabulary, has_official_split, note)

    def list_images(self) -> pa.Table:
        """List the images as `find` saw them; their key is their path, or with labels=multilabel their file name."""
        return self.images

    def read_entries(self, spark: SparkSession) -> DataFrame:
        """Return one row per image in a class folder, as `pipelines.spark.sources.tables.ENTRY_COLUMNS`."""
        rows = [
            self._make_entry(line, key, locations) for line, (key, locations) in enumerate(self.locations.items(), 1)
        ]
        return spark.createDataFrame(rows, ENTRY_COLUMNS)  # type: ignore[type-var]  # takes dicts, its stubs do not

    def _make_entry(self, line: int, key: str, locations: list[ImageLocation]) -> dict[str, Any]:
        """Return the row of one image from all its locations."""
        labels = {self.classes[location.folder] for location in locations if location.folder is not None}
        findings = [finding for finding in self.vocabulary if finding in labels]
        splits = {location.listed for location in locations} if self.has_official_split else {None}
        image_id = f"{self.name}:{key.replace('/', ':')}"
        patients = {self._find_patient(location.path) for location in locations} if self.pattern else {image_id}
        problem = None
        if findings and None in labels:
            problem = "in a class folder without finding and in another"
        elif len(splits) > 1:
            problem = "in folders of test and of another split"
        elif None in patients:
            problem = "patient_pattern finds no patient in the path"
        elif len(patients) > 1:
            problem = "patient_pattern finds several patients in its paths"
        path = locations[0].path
        return {
            "line": line,
            "text": path,
            "key": key,
            "image_id": image_id,
            "patient_id": next(iter(patients)) if len(patients) == 1 else None,
            "study_id": image_id,
            "impossible_age": False,
            "findings": findings,
            "targets": encode_targets(findings, self.vocabulary),
            "uncertain": [],
            "listed": next(iter(splits)) if len(splits) == 1 else None,
            "reason": "entry_unparsable" if problem else None,
            "detail": f"{path}: {problem}" if problem else None,
        }

    def _find_patient(self, path: str) -> str | None:
        match = self.pattern.search(path) if self.pattern else None
        return f"{self.name}:{match[1]}" if match and match[1] else None


def compile_pattern(text: str | None) -> re.Pattern[str] | None:
    """Compile `source.patient_pattern`.

    Raises:
        UserError: It is not a regular expression, or has no group.
    """
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"source.patient_pattern={text} is not a regular expression: {error}") from error
    if not pattern.groups:
        raise UserError(f"source.patient_pattern={text} has no group: put the patient's part in parentheses")
    return pattern


def map_classes(source: schema.Folders, present: Collection[str]) -> dict[str, str | None]:
    """Map each class folder to its finding, None for one without finding: `source.classes`, or all folders present.

    Raises:
        UserError: A class without a folder, or no class with a finding.
    """
    folders = ", ".join(sorted(present)) or "no class folders"
    classes = source.classes if source.classes is not None else {folder: folder for folder in sorted(present)}
    unknown = [folder for folder in classes if folder not in present]
    if unknown:
        raise UserError(f"source.classes names the folder {unknown[0]}, but source.root={source.root} has {folders}")
    findings = {folder: canonicalise(name) if name else NO_FINDING for folder, name in classes.items()}
    if set(findings.values()) <= {NO_FINDING}:
        raise UserError(
            f"source.root={source.root} has {folders}, and none stands for a finding: give source.classes, "
            "such as {normal: null, pneumonia: Pneumonia}"
        )
    return {folder: None if finding == NO_FINDING else finding for folder, finding in findings.items()}


def _without_masks(images: pa.Table) -> tuple[pa.Table, int]:
    """Return the images outside folders of masks, and how many files lie in such folders."""
    kept = [MASKS not in path.lower().split("/")[:-1] for path in images["path"].to_pylist()]
    return images.filter(pa.array(kept, pa.bool_())), kept.count(False)
