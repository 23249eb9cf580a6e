"""The source of one folder per class: root/Normal/*.png, root/Pneumonia/*.png, also below train/, val/ and test/."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import NO_FINDING, canonicalise, encode_targets, merge_vocabularies
from pipelines.data.files import InputFolder
from pipelines.spark.sources.folder_layout import FolderLayout, ImageLocation, is_neutral
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.tables import ENTRY_COLUMNS, WithoutBoxes, compile_pattern, open_root
from pipelines.spark.splits import TEST


@dataclass(frozen=True)
class Folders(WithoutBoxes):
    """A set of one folder per class, opened by `find`.

    Attributes:
        name: Of the source; a prefix of its image and patient IDs.
        images: `pipelines.data.files.LISTING`, without masks and other companions of images.
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
    guesses: tuple[Guess, ...]
    tables: tuple[str, ...] = ()
    keeps_missing: bool = False

    @staticmethod
    def find(source: schema.Folders) -> "Folders":
        """List the images and read their classes and splits from their paths.

        Raises:
            UserError: No such folder, a bad pattern (see `compile_pattern`) or bad classes (see `map_classes`).
        """
        text = source.patient_pattern
        pattern = None if text is None else compile_pattern(text, f"source.patient_pattern={text}")
        folder = open_root(source.root, "/data/folders")
        images = folder.list_images()
        layout = FolderLayout(images["path"].to_pylist(), source.classes)
        companions = layout.find_companions()
        images = images.filter(pa.array([path not in companions for path in layout.paths], pa.bool_()))
        paths = images["path"].to_pylist()
        keys = [PurePosixPath(path).name for path in paths] if source.labels == "multilabel" else paths
        images = images.set_column(images.schema.get_field_index("key"), "key", pa.array(keys, pa.string()))

        parsed = [layout.locate(path) for path in paths]
        classes = map_classes(source, parsed) if paths else {}
        locations = defaultdict(list)
        for key, location in zip(keys, parsed, strict=True):
            if location.folder in classes:
                locations[key].append(location)

        splits = {location.listed for of_key in locations.values() for location in of_key}
        has_official_split = TEST in splits and None not in splits
        vocabulary = merge_vocabularies([[finding for finding in classes.values() if finding]])
        notes = [f"{source.labels}: " + ", ".join(f"{name} = {classes[name] or 'no finding'}" for name in classes)]
        if pattern is None:
            notes.append("each image its own patient: the split cannot keep patients apart")
        guesses = (
            *guess_classes(source, parsed, classes),
            *guess_wrappers(layout, paths),
            *guess_splits(parsed, has_official_split),
            *guess_companions(companions),
        )
        note = "; ".join(notes)
        return Folders(
            folder, source.name, images, locations, classes, pattern, vocabulary, has_official_split, note, guesses
        )

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


def map_classes(source: schema.Folders, located: Sequence[ImageLocation]) -> dict[str, str | None]:
    """Map each class folder to its finding, None for one without finding: `source.classes`, or all folders present.

    Raises:
        UserError: A class without a folder, or no class with a finding.
    """
    present = sorted({location.folder for location in located if location.folder is not None})
    everywhere = sorted({name for location in located for name in location.path.split("/")[:-1]})
    folders = ", ".join(present or everywhere) or "no class folders"
    classes = source.classes if source.classes is not None else {folder: folder for folder in present}
    unknown = [folder for folder in classes if folder not in everywhere]
    if unknown:
        raise UserError(
            f"source.classes names the folder {unknown[0]}, but source.root={source.root} has "
            f"{', '.join(everywhere) or 'no class folders'}"
        )
    findings = {folder: canonicalise(name) if name else NO_FINDING for folder, name in classes.items()}
    if set(findings.values()) <= {NO_FINDING}:
        raise UserError(
            f"source.root={source.root} has {folders}, and none stands for a finding: give source.classes, "
            "such as {normal: null, pneumonia: Pneumonia}"
        )
    return {folder: None if finding == NO_FINDING else finding for folder, finding in findings.items()}


def guess_classes(
    source: schema.Folders, located: Sequence[ImageLocation], classes: Mapping[str, str | None]
) -> Iterator[Guess]:
    """Say which folders were taken for classes; nothing if the user named them."""
    if source.classes is not None:
        return
    counts = Counter(location.folder for location in located)
    taken = ", ".join(f"{name} = {finding or 'no finding'} ({counts[name]:,})" for name, finding in classes.items())
    yield Guess(f"classes by folder: {taken}", "source.classes")


def guess_wrappers(layout: FolderLayout, paths: Sequence[str]) -> Iterator[Guess]:
    """Say which folders were taken for no classes because they hold class folders."""
    if layout.classes is not None:
        return
    counts: Counter[str] = Counter()
    for path in paths:
        folders = tuple(path.split("/")[:-1])
        outer = (folders[:depth] for depth in range(1, len(folders) + 1))
        counts.update("/".join(part) for part in outer if not is_neutral(part[-1]) and layout.is_wrapper(part))
    if counts:
        held = ", ".join(f"{folder} ({count:,})" for folder, count in sorted(counts.items()))
        yield Guess(f"no classes, because they hold class folders: {held}", "source.classes")


def guess_splits(located: Sequence[ImageLocation], kept: bool) -> Iterator[Guess]:
    """Say which files were taken for a part of a split, and whether that split is kept."""
    counts = Counter(location.listed for location in located if location.folder is not None)
    if not counts.keys() - {None}:
        return
    taken = ", ".join(f"{name or 'in none'} {count:,}" for name, count in sorted(counts.items(), key=str))
    kept_or_not = "" if kept else "; not kept: one folder must be test and every image in one. Split by hash"
    yield Guess(f"splits by folder: {taken}{kept_or_not}", "split.by=hash" if kept else "split.by")


def guess_companions(companions: Mapping[str, bool]) -> Iterator[Guess]:
    """Say which files are not read because they are masks or other pictures that accompany images."""
    if not companions:
        return
    folders = sorted({PurePosixPath(path).parent.name for path in companions})
    lost = [*companions.values()].count(False)
    alone = f", {lost:,} of them without an image of their name" if lost else ""
    text = f"no images of a class but masks or the like: {len(companions):,} files in {', '.join(folders)}{alone}"
    yield Guess(text, "source.classes", lost)
