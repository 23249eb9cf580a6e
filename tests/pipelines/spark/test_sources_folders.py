"""Sets of one folder per class: class, split and patient from paths, in common layouts."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from chestai.config import schema
from chestai.errors import UserError
from pipelines.data.files import LISTING
from pipelines.spark.sources.folder_layout import FolderLayout, ImageLocation
from pipelines.spark.sources.folders import Folders
from pipelines.spark.sources.tables import BOX_COLUMNS, ENTRY_COLUMNS

NO_PATIENTS = "each image its own patient: the split cannot keep patients apart"


def write_files(root: Path, *paths: str) -> None:
    """Write these files."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def make_config(root: Path | None, **changes: Any) -> schema.Folders:
    settings = {"name": "set", "labels": "multiclass", "classes": None, "patient_pattern": None, **changes}
    return schema.Folders(format="folders", root=None if root is None else str(root), **settings)


def read_entries(source: Folders, spark_session: SparkSession) -> list[Row]:
    frame = source.read_entries(spark_session)
    assert frame.dtypes == spark_session.createDataFrame([], ENTRY_COLUMNS).dtypes
    return sorted(frame.collect(), key=lambda entry: entry.line)


@pytest.mark.parametrize(
    ("path", "folder", "listed"),
    [
        ("x.png", None, None),
        ("Normal/x.png", "Normal", None),
        ("COVID/images/x.png", "COVID", None),
        ("train/NORMAL/x.jpeg", "NORMAL", "train_val"),
        ("Test/NORMAL/deep/x.jpeg", "NORMAL", "test"),
        ("NORMAL/validation/x.jpeg", "NORMAL", "train_val"),
        ("val/x.jpeg", None, "train_val"),
        ("testing/x.jpeg", None, "test"),
        ("images/x.png", None, None),
    ],
)
def test_path_gives_class_and_split(path: str, folder: str | None, listed: str | None) -> None:
    assert FolderLayout([path]).locate(path) == ImageLocation(path, folder, listed)


def test_one_folder_per_class(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(tmp_path, "Normal/a.png", "pleural effusion/b.JPG", "Gout/deep/c.png", "stray.png", "Normal/notes.txt")
    source = Folders.find(make_config(tmp_path))
    assert source.vocabulary == ("Effusion", "Gout")
    assert source.note == (f"multiclass: Gout = Gout, Normal = no finding, pleural effusion = Effusion; {NO_PATIENTS}")
    assert not source.has_official_split and not source.keeps_missing and source.tables == ()

    gout, normal, effusion = read_entries(source, spark_session)
    assert (gout.line, gout.text, gout.key) == (1, "Gout/deep/c.png", "Gout/deep/c.png")
    assert gout.image_id == gout.patient_id == gout.study_id == "set:Gout:deep:c.png"
    assert (gout.findings, gout.targets) == (["Gout"], [0.0, 1.0])
    assert (normal.findings, normal.targets) == ([], [0.0, 0.0])
    assert (effusion.findings, effusion.targets) == (["Effusion"], [1.0, 0.0])
    assert gout.uncertain == normal.uncertain == effusion.uncertain == []
    for entry in (gout, normal, effusion):
        unknown = (entry.age_years, entry.sex, entry.view, entry.listed, entry.reason, entry.detail)
        assert unknown == (None,) * 6 and entry.impossible_age is False

    listing = source.list_images()
    assert listing["key"].to_pylist() == listing["path"].to_pylist()
    assert listing.schema == LISTING and listing.num_rows == 4  # with the stray file, which must be accounted for
    boxes = source.read_boxes(spark_session)
    assert boxes.count() == 0 and boxes.dtypes == spark_session.createDataFrame([], BOX_COLUMNS).dtypes


def test_complete_split_folders_are_the_official_split(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(
        tmp_path,
        *("train/NORMAL/IM-1.jpeg", "train/PNEUMONIA/person1_virus_1.jpeg", "val/PNEUMONIA/person2_virus_1.jpeg"),
        *("test/NORMAL/IM-1.jpeg", "test/PNEUMONIA/person3_virus_1.jpeg", "test/.DS_Store"),
    )
    source = Folders.find(make_config(tmp_path))
    assert source.has_official_split and source.vocabulary == ("Pneumonia",)
    entries = {entry.text: (entry.listed, entry.findings) for entry in read_entries(source, spark_session)}
    assert entries == {
        "train/NORMAL/IM-1.jpeg": ("train_val", []),
        "train/PNEUMONIA/person1_virus_1.jpeg": ("train_val", ["Pneumonia"]),
        "val/PNEUMONIA/person2_virus_1.jpeg": ("train_val", ["Pneumonia"]),
        "test/NORMAL/IM-1.jpeg": ("test", []),
        "test/PNEUMONIA/person3_virus_1.jpeg": ("test", ["Pneumonia"]),
    }


@pytest.mark.parametrize("paths", [("train/A/x.png", "val/B/y.png"), ("train/A/x.png", "test/B/y.png", "B/z.png")])
def test_incomplete_split_folders_are_ignored_with_a_note(
    tmp_path: Path, spark_session: SparkSession, paths: tuple[str, ...]
) -> None:
    write_files(tmp_path, *paths)
    source = Folders.find(make_config(tmp_path))
    assert not source.has_official_split
    assert (
        "not kept: one folder must be test and every image in one. Split by hash (split.by)" in source.guesses[1].line
    )
    assert {entry.listed for entry in read_entries(source, spark_session)} == {None}


def test_masks_are_not_read_and_counted_in_the_note(tmp_path: Path, spark_session: SparkSession) -> None:
    for folder in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        write_files(tmp_path, f"{folder}/images/{folder}-1.png", f"{folder}/masks/{folder}-1.png")
    source = Folders.find(make_config(tmp_path))
    assert source.vocabulary == ("Lung_Opacity", "COVID-19", "Viral_Pneumonia")
    assert "masks or the like: 4 files in masks (source.classes)" in source.guesses[1].line
    entries = {entry.key: entry.findings for entry in read_entries(source, spark_session)}
    assert entries == {
        "COVID/images/COVID-1.png": ["COVID-19"],
        "Lung_Opacity/images/Lung_Opacity-1.png": ["Lung_Opacity"],
        "Normal/images/Normal-1.png": [],
        "Viral Pneumonia/images/Viral Pneumonia-1.png": ["Viral_Pneumonia"],
    }
    assert source.list_images()["key"].to_pylist() == list(entries)


def test_only_configured_classes_are_read(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(tmp_path, "tb/a.png", "ok/b.png", "ok2/c.png", "sick/d.png")
    source = Folders.find(make_config(tmp_path, classes={"ok": None, "tb": "Tuberculosis", "ok2": "normal"}))
    assert source.vocabulary == ("Tuberculosis",)
    assert source.note.startswith("multiclass: ok = no finding, tb = Tuberculosis, ok2 = no finding; ")
    entries = {entry.key: entry.findings for entry in read_entries(source, spark_session)}
    assert entries == {"tb/a.png": ["Tuberculosis"], "ok/b.png": [], "ok2/c.png": []}
    assert source.list_images().num_rows == 4


def test_file_name_in_several_folders_has_all_their_findings(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(
        tmp_path, "Edema/a.png", "Effusion/a.png", "Edema/b.png", "Normal/c.png", "Normal/d.png", "Effusion/d.png"
    )
    source = Folders.find(make_config(tmp_path, labels="multilabel"))
    assert source.vocabulary == ("Effusion", "Edema")
    entries = {entry.key: entry for entry in read_entries(source, spark_session)}
    assert sorted(entries) == ["a.png", "b.png", "c.png", "d.png"]
    assert (entries["a.png"].findings, entries["a.png"].targets) == (["Effusion", "Edema"], [1.0, 1.0])
    assert (entries["b.png"].findings, entries["b.png"].targets) == (["Edema"], [0.0, 1.0])
    assert (entries["c.png"].findings, entries["c.png"].reason) == ([], None)
    assert entries["a.png"].image_id == entries["a.png"].patient_id == "set:a.png"
    assert entries["d.png"].reason == "entry_unparsable"
    assert entries["d.png"].detail == "Effusion/d.png: in a class folder without finding and in another"
    assert sorted(source.list_images()["key"].to_pylist()) == ["a.png", "a.png", "b.png", "c.png", "d.png", "d.png"]


def test_file_name_in_train_and_test_is_rejected(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(
        tmp_path, "train/Edema/a.png", "test/Mass/a.png", "train/Edema/b.png", "val/Mass/b.png", "test/Mass/c.png"
    )
    source = Folders.find(make_config(tmp_path, labels="multilabel"))
    assert source.has_official_split
    entries = {entry.key: (entry.listed, entry.reason) for entry in read_entries(source, spark_session)}
    assert entries == {
        "a.png": (None, "entry_unparsable"),
        "b.png": ("train_val", None),
        "c.png": ("test", None),
    }


def test_image_without_a_match_of_the_patient_pattern_is_rejected(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(
        tmp_path, "PNEUMONIA/person1_a.png", "PNEUMONIA/person1_b.png", "PNEUMONIA/person22_a.png", "NORMAL/IM-1.png"
    )
    source = Folders.find(make_config(tmp_path, patient_pattern=r"(person\d+)_"))
    assert NO_PATIENTS not in source.note
    entries = {entry.text: entry for entry in read_entries(source, spark_session)}
    assert [entries[f"PNEUMONIA/{name}.png"].patient_id for name in ("person1_a", "person1_b", "person22_a")] == [
        *("set:person1", "set:person1", "set:person22")
    ]
    rejected = entries["NORMAL/IM-1.png"]
    assert (rejected.reason, rejected.patient_id) == ("entry_unparsable", None)
    assert rejected.detail == "NORMAL/IM-1.png: patient_pattern finds no patient in the path"


def test_file_name_with_two_patients_is_rejected(tmp_path: Path, spark_session: SparkSession) -> None:
    write_files(tmp_path, "Edema/p1/a.png", "Mass/p2/a.png", "Edema/p3/b.png", "Mass/p3/b.png")
    source = Folders.find(make_config(tmp_path, labels="multilabel", patient_pattern=r"/(p\d)/"))
    entries = {entry.key: (entry.patient_id, entry.reason) for entry in read_entries(source, spark_session)}
    assert entries == {"a.png": (None, "entry_unparsable"), "b.png": ("set:p3", None)}


def test_folder_without_images_has_no_entries(tmp_path: Path, spark_session: SparkSession) -> None:
    source = Folders.find(make_config(tmp_path, classes={"Normal": None}))
    assert source.list_images().num_rows == 0 and source.read_entries(spark_session).count() == 0


@pytest.mark.parametrize("pattern", ["(", "person", "(?:person)"])
def test_pattern_without_a_group_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"source\.patient_pattern=.* (is not a regular expression|has no group)"):
        Folders.find(make_config(tmp_path, patient_pattern=pattern))


def test_classes_that_do_not_fit_the_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.root is not set"):
        Folders.find(make_config(None))
    write_files(tmp_path, "stray.png")
    with pytest.raises(UserError, match=r"has no class folders, and none stands for a finding"):
        Folders.find(make_config(tmp_path))
    write_files(tmp_path, "train/Normal/a.png", "train/healthy/b.png")
    with pytest.raises(UserError, match=r"has Normal, healthy, and none stands for a finding: give source\.classes"):
        Folders.find(make_config(tmp_path))
    with pytest.raises(UserError, match=r"source\.classes names the folder sick, but source\.root=.* has Normal, heal"):
        Folders.find(make_config(tmp_path, classes={"sick": "Pneumonia"}))
    with pytest.raises(UserError, match=r"none stands for a finding"):
        Folders.find(make_config(tmp_path, classes={"Normal": None}))
