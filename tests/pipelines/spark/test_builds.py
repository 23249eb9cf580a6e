"""Builds after builds: moved, grown, without files, of bad files only, of several sources."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from chestai.cli.console import Screen
from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.labels.findings import CHEXPERT13, NIH14
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE
from pipelines.spark.history import show_history
from pipelines.spark.sources.chexpert import HEADER
from pipelines.spark.sources.nih import ENTRY_HEADER
from pipelines.spark.splits import assign_split
from tests.support.corpus import (
    BuiltCorpus,
    corpus_config,
    encode_png,
    make_noise,
    reconcile_corpus,
    run_etl,
    write_corpus,
)

pytestmark = pytest.mark.usefixtures("spark_session")


def write_plain(root: Path, patients: range) -> None:
    """Write the 2020 form without lists: one image of random pixels per patient; existing files stay."""
    root.mkdir(exist_ok=True)
    rows = [f"{patient:08d}_003.png,No Finding,0,{patient},57,F,PA,2500,2048,0.1,0.1" for patient in patients]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([ENTRY_HEADER, *rows]))
    for patient in patients:
        path = root / f"{patient:08d}_003.png"
        if not path.exists():
            path.write_bytes(encode_png(make_noise(patient, 32, 32)))


@pytest.mark.slow
def test_moved_corpus_is_the_same_snapshot_at_new_paths(built_corpus: BuiltCorpus, tmp_path: Path) -> None:
    elsewhere, lake = tmp_path / "elsewhere", Lake(str(tmp_path / "lake"))
    shutil.copytree(built_corpus.lake.root, lake.root)
    shutil.copytree(built_corpus.root, elsewhere)
    run_etl(corpus_config(elsewhere, tmp_path / "lake"))
    old, new = lake.list_snapshots()
    assert new.snapshot_id == old.snapshot_id and new.fingerprint != old.fingerprint
    different = {"built_at": 0, "versions": 0, "fingerprint": 0}
    assert {**new.__dict__, **different} == {**old.__dict__, **different}
    before, after = (lake.read_gold(build, IMAGES) for build in (old, new))
    assert before.drop(["path"]) == after.drop(["path"])
    assert after["path"][0].as_py().startswith(str(elsewhere))
    assert lake.read_gold(old, LABELS) == lake.read_gold(new, LABELS)


@pytest.fixture(scope="module")
def grown(spark_session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """40 images of the 2020 form, and a second build after some of them changed and three were added."""
    root = tmp_path_factory.mktemp("grown") / "corpus"
    config = corpus_config(root, root.parent / "lake")
    write_plain(root, range(1, 41))
    assert run_etl(config).facts["read"] == "40 new or changed of 40 files"
    write_plain(root, range(1, 44))
    (root / "00000001_003.png").write_bytes(encode_png(make_noise(99, 40, 40)))  # rewritten with other content
    os.utime(root / "00000002_003.png")  # rewritten with the same content
    untouched = root / "00000003_003.png"
    stat = untouched.stat()
    untouched.write_bytes(b"\0" * stat.st_size)
    os.utime(untouched, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # reading this one would reject it
    summary = run_etl(config)
    assert summary.facts["read"] == "5 new or changed of 43 files"
    assert summary.facts["headline"].endswith("0 quarantined")
    return config


def test_grown_corpus_is_read_only_where_it_is_new(grown: Config) -> None:
    lake = Lake(grown.lake)
    old, new = lake.list_snapshots()
    before, after = (
        {row["image_id"]: row for row in lake.read_gold(build, IMAGES).to_pylist()} for build in (old, new)
    )
    assert len(before) == 40 and len(after) == 43, "the old snapshot stays readable"
    assert after["00000001_003"]["height"] == 40 and before["00000001_003"]["height"] == 32
    assert {key: row for key, row in after.items() if key in before and key != "00000001_003"} == {
        key: row for key, row in before.items() if key != "00000001_003"
    }


def test_2020_form_without_lists_and_boxes_is_split_by_hash(grown: Config) -> None:
    lake = Lake(grown.lake)
    build = lake.list_snapshots()[0]
    images = lake.read_gold(build, IMAGES).to_pylist()
    assert {row["patient_id"]: row["split"] for row in images} == {
        f"{patient:08d}": assign_split(f"{patient:08d}", None, grown.split) for patient in range(1, 41)
    }
    assert {row["split"] for row in images} == {"train", "val", "test"}
    assert {(row["age_years"], row["study_id"][8:]) for row in images} == {(57.0, "_003")}
    assert lake.read_gold(build, BOXES).num_rows == lake.read_gold(build, QUARANTINE).num_rows == 0
    assert build.pos_weight == (1.0,) * 14


def test_official_split_is_refused_without_lists(tmp_path: Path) -> None:
    write_plain(tmp_path / "corpus", range(1, 3))
    with pytest.raises(UserError, match=r"split\.by=official: the source nih has no split of its own"):
        run_etl(corpus_config(tmp_path / "corpus", tmp_path / "lake", "split.by=official"))


@pytest.mark.slow
def test_lake_without_uncertain_labels_can_be_built_on(tmp_path: Path) -> None:
    """Builds from before the column `uncertain` stay readable, and keep their ID when built again."""
    root, config = tmp_path / "corpus", corpus_config(tmp_path / "corpus", tmp_path / "lake")
    write_plain(root, range(1, 6))
    run_etl(config)
    lake = Lake(config.lake)
    built = lake.find_snapshot()
    version = lake.write(LABELS, lake.read_gold(built, LABELS).drop(["uncertain"]))
    lake.publish(replace(built, versions={**built.versions, LABELS: version}, built_at=now()))
    assert run_etl(config).facts["read"] == "nothing"
    assert run_etl(config.model_copy(update={"force": True})).facts["read"] == "0 new or changed of 5 files"
    _, old, again = lake.list_snapshots()
    assert lake.read_gold(old, LABELS).column_names == ["image_id", "findings", "targets"]
    assert lake.read_gold(again, LABELS)["uncertain"].to_pylist() == [[]] * 5
    assert lake.read_gold(old, LABELS) == lake.read_gold(again, LABELS).drop(["uncertain"])
    assert old.snapshot_id == again.snapshot_id


@pytest.mark.slow
def test_history_lists_the_builds(tmp_path: Path) -> None:
    config = corpus_config(tmp_path / "corpus", tmp_path / "lake")
    screen = Screen(Console(file=io.StringIO(), width=200))
    with pytest.raises(UserError, match=r"holds no build"):
        show_history(config, screen)
    for patients in (range(1, 5), range(1, 6)):
        write_plain(tmp_path / "corpus", patients)
        run_etl(config)
    show_history(config, screen)
    lines = screen.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    for build, images in zip(Lake(config.lake).list_snapshots(), ("4", "5"), strict=True):
        (line,) = [line for line in lines if build.snapshot_id in line]
        assert line.split("│")[4].strip() == images


def test_entries_without_files_stay_in_gold_when_images_are_optional(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write_corpus(root)
    os.remove(root / "images_001" / "images" / "00000013_000.png")
    run_etl(corpus_config(root, tmp_path / "lake", "source.images=optional"))
    lake = Lake(str(tmp_path / "lake"))
    snapshot = lake.find_snapshot()
    rows = {row["image_id"]: row for row in lake.read_gold(snapshot, IMAGES).to_pylist()}
    without_file = rows["00000013_000"]
    assert without_file["split"] == "test" and without_file["age_years"] == pytest.approx(1 / 365.25)
    assert {name for name, value in without_file.items() if value is None} == {
        *("path", "height", "width", "channels", "bytes", "sha256", "pixel_mean", "pixel_std")
    }
    # 00000011 never had a file; bad files and bad rows are still rejected
    assert {image_id for image_id, row in rows.items() if row["path"] is None} == {"00000011_000", "00000013_000"}
    assert snapshot.accounting["gold_without_file"] == 2 and snapshot.accounting["entries_without_file"] == 0
    assert sum(counts["images"] - counts["files"] for counts in snapshot.splits.values()) == 2
    assert "00000013_000" not in lake.read_usable(snapshot, [])["image_id"].to_pylist(), "never fed to a network"


@pytest.mark.slow
def test_corpus_of_bad_files_is_an_empty_build(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write_plain(root, range(1, 6))
    for path in root.glob("*.png"):
        path.write_bytes(b"<html>sign in</html>")
    summary = run_etl(corpus_config(root, tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"))
    assert summary.rows == 0 and summary.facts["quarantine"] == {"not_an_image": 5}
    assert lake.read_gold(lake.find_snapshot(), QUARANTINE).num_rows == 5
    assert lake.read_gold(lake.find_snapshot(), IMAGES).num_rows == 0


@pytest.mark.slow
def test_patient_in_two_splits_fails_the_build(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    lists = tmp_path / "corpus" / "train_val_list.txt", tmp_path / "corpus" / "test_list.txt"
    lists[0].write_text(lists[0].read_text().replace("00000001_001.png\n", ""))
    lists[1].write_text(lists[1].read_text() + "\n00000001_001.png")
    with pytest.raises(UserError, match=r"patient 00000001 .* test"):
        run_etl(corpus_config(tmp_path / "corpus", tmp_path / "lake"))
    assert Lake(str(tmp_path / "lake")).list_snapshots() == []
    run_etl(corpus_config(tmp_path / "corpus", tmp_path / "lake", "split.by=hash"))
    images = Lake(str(tmp_path / "lake")).read_gold(Lake(str(tmp_path / "lake")).find_snapshot(), IMAGES).to_pylist()
    split = corpus_config(tmp_path / "corpus", tmp_path / "lake").split
    assert {(row["patient_id"], row["split"]) for row in images} == {
        (row["patient_id"], assign_split(row["patient_id"], None, split)) for row in images
    }
    assert "00000012_000" in {row["image_id"] for row in images}, "no list, nothing unlisted"


def write_three_sources(folder: Path) -> list[str]:
    """Write NIH, CheXpert and folders below a folder, and return the config words of the last two."""
    nih, chexpert, folders = (folder / name for name in ("nih", "chexpert", "folders"))
    write_plain(nih, range(1, 4))
    study = chexpert / "train" / "patient00001" / "study1"
    study.mkdir(parents=True)
    for at, name in enumerate(("view1_frontal.jpg", "view2_lateral.jpg"), 50):
        (study / name).write_bytes(encode_png(make_noise(at)))
    blank = ",".join([""] * 9)
    path = "CheXpert-v1.0-small/train/patient00001/study1"
    rows = [
        f"{path}/view1_frontal.jpg,Female,68,Frontal,AP,,-1.0,1.0,,,{blank}",
        f"{path}/view2_lateral.jpg,Female,68,Lateral,,,-1.0,1.0,,,{blank}",
    ]
    (chexpert / "train.csv").write_text("\n".join([HEADER, *rows]))
    for at, name in enumerate(("Normal", "Tuberculosis"), 60):
        (folders / name).mkdir(parents=True)
        (folders / name / "a.png").write_bytes(encode_png(make_noise(at)))
    (folders / "Tuberculosis" / "b.png").write_bytes(encode_png(make_noise(1, 32, 32)))  # the image of NIH's patient 1
    return [
        *("+source@also.c=chexpert", f"also.c.root={chexpert}", "also.c.uncertainty=ones"),
        *("+source@also.f=folders", f"also.f.root={folders}"),
    ]


@pytest.mark.slow
def test_several_sources_are_one_build(tmp_path: Path) -> None:
    """NIH, CheXpert and folders: one vocabulary, null for findings that a source lacks, each content once."""
    config = corpus_config(tmp_path / "nih", tmp_path / "lake", *write_three_sources(tmp_path))
    run_etl(config)
    lake = Lake(str(tmp_path / "lake"))
    snapshot = lake.find_snapshot()
    assert snapshot.source == "nih+chexpert+folders"
    assert snapshot.vocabulary[:14] == NIH14 and set(snapshot.vocabulary) == {*NIH14, *CHEXPERT13, "Tuberculosis"}
    targets = {
        row["image_id"]: dict(zip(snapshot.vocabulary, row["targets"], strict=True)) for row in read_labels(lake)
    }
    assert targets["00000001_003"] == {name: 0.0 if name in NIH14 else None for name in snapshot.vocabulary}
    film = targets["patient00001_study1_view1_frontal"]
    assert film["Cardiomegaly"] == film["Enlarged_Cardiomediastinum"] == 1.0 and film["Effusion"] == 0.0
    assert film["Hernia"] is None and film["Tuberculosis"] is None
    assert targets["folders:Tuberculosis:a.png"]["Tuberculosis"] == 1.0
    assert targets["folders:Normal:a.png"]["Tuberculosis"] == 0.0
    uncertain = {row["image_id"]: row["uncertain"] for row in read_labels(lake)}
    films = {f"patient00001_study1_{view}" for view in ("view1_frontal", "view2_lateral")}
    assert {image_id for image_id, findings in uncertain.items() if findings} == films
    assert all(uncertain[film] == ["Enlarged_Cardiomediastinum"] for film in films)
    assert all(uncertain[image_id] == [] for image_id in targets.keys() - films), "an empty list, not null"
    images = {row["image_id"]: row for row in lake.read_gold(snapshot, IMAGES).to_pylist()}
    assert {row["source"] for row in images.values()} == {"nih", "chexpert", "folders"} and len(images) == 7
    (copy,) = lake.read_gold(snapshot, QUARANTINE).to_pylist()
    assert copy["item"].endswith("b.png") and copy["reason"] == "duplicate_content"
    assert images["patient00001_study1_view2_lateral"]["view"] == "lateral"
    assert "patient00001_study1_view2_lateral" not in lake.read_usable(snapshot, [])["image_id"].to_pylist()
    assert sum(counts["laterals"] for counts in snapshot.splits.values()) == 1


def read_labels(lake: Lake) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.read_gold(lake.find_snapshot(), LABELS).to_pylist()
    return rows


def test_files_of_one_name_are_one_image_only_if_they_agree(spark_session: SparkSession, tmp_path: Path) -> None:
    """With labels=multilabel: `a` lies in two classes, `b` is two different images, one copy of `c` is truncated."""
    for folder in ("Normal", "Pneumonia", "Tuberculosis"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    contents = {
        "Pneumonia/a.png": encode_png(make_noise(1)),
        "Tuberculosis/a.png": encode_png(make_noise(1)),
        "Pneumonia/b.png": encode_png(make_noise(2)),
        "Tuberculosis/b.png": encode_png(make_noise(3)),
        "Pneumonia/c.png": encode_png(make_noise(4))[:900],
        "Tuberculosis/c.png": encode_png(make_noise(4)),
        "Normal/d.png": encode_png(make_noise(5)),
    }
    for name, content in contents.items():
        (tmp_path / "set" / name).write_bytes(content)
    config = corpus_config(tmp_path / "set", tmp_path / "lake", "source=folders", "source.labels=multilabel")
    result = reconcile_corpus(spark_session, config)
    labels = {image_id: row["targets"] for image_id, row in result.gold().items()}
    assert labels == {"folders:a.png": [1.0, 1.0], "folders:c.png": [1.0, 1.0], "folders:d.png": [0.0, 0.0]}
    assert {(row["item"].split("/set/")[1], row["reason"]) for row in result.quarantine()} == {
        ("Tuberculosis/a.png", "duplicate_file"),
        ("Pneumonia/b.png", "conflicting_file"),
        ("Tuberculosis/b.png", "conflicting_file"),
        ("Pneumonia/c.png", "duplicate_file"),
    }


def test_corpus_without_images_is_refused_before_spark(tmp_path: Path) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_text(ENTRY_HEADER + "\n")
    with pytest.raises(UserError, match=r"holds no image file at any depth"):
        run_etl(corpus_config(tmp_path, tmp_path / "lake"))
