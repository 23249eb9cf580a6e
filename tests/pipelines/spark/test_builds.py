"""Builds after builds: moved, grown, re-issued, without files, of nothing but bad files, of several sources."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chestai.cli.console import Screen
from chestai.clock import now
from chestai.errors import UserError
from chestai.labels.findings import CHEXPERT13, NIH14
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE
from pipelines.spark.history import show_history
from pipelines.spark.sources.chexpert import HEADER
from pipelines.spark.sources.nih import ENTRY_HEADER
from pipelines.spark.splits import assign_split
from tests.support.corpus import corpus_config, encode_png, make_noise, run_etl, write_corpus

pytestmark = pytest.mark.usefixtures("spark_session")


def write_plain(root: Path, patients: range, image_of: dict[int, int] | None = None) -> None:
    """The 2020 form without lists: one image a patient, of random pixels, or those of another patient's number."""
    root.mkdir(exist_ok=True)
    rows = [f"{patient:08d}_003.png,No Finding,0,{patient},57,F,PA,2500,2048,0.1,0.1" for patient in patients]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([ENTRY_HEADER, *rows]))
    for patient in patients:
        path = root / f"{patient:08d}_003.png"
        if not path.exists():
            path.write_bytes(encode_png(make_noise((image_of or {}).get(patient, patient), 32, 32)))


@pytest.mark.slow
def test_a_moved_corpus_is_the_same_snapshot_at_new_paths(tmp_path: Path) -> None:
    root, elsewhere, lake = tmp_path / "corpus", tmp_path / "elsewhere", Lake(str(tmp_path / "lake"))
    write_corpus(root)
    run_etl(corpus_config(root, tmp_path / "lake"))
    shutil.copytree(root, elsewhere)
    run_etl(corpus_config(elsewhere, tmp_path / "lake"))
    old, new = lake.history()
    assert new.snapshot_id == old.snapshot_id and new.fingerprint != old.fingerprint
    apart = {"built_at": 0, "versions": 0, "fingerprint": 0}
    assert {**new.__dict__, **apart} == {**old.__dict__, **apart}
    before, after = (lake.gold(build, IMAGES) for build in (old, new))
    assert before.drop(["path"]) == after.drop(["path"])
    assert after["path"][0].as_py().startswith(str(elsewhere))
    assert lake.gold(old, LABELS) == lake.gold(new, LABELS)


def test_a_grown_root_is_read_only_where_it_is_new(tmp_path: Path) -> None:
    root, config = tmp_path / "corpus", corpus_config(tmp_path / "corpus", tmp_path / "lake")
    write_plain(root, range(1, 11))
    assert run_etl(config).facts["read"] == "10 new or changed of 10 files"
    write_plain(root, range(1, 14))
    (root / "00000001_003.png").write_bytes(encode_png(make_noise(99, 40, 40)))  # written again, otherwise
    os.utime(root / "00000002_003.png")  # written again, the same
    untouched = root / "00000003_003.png"
    stat = untouched.stat()
    untouched.write_bytes(b"\0" * stat.st_size)
    os.utime(untouched, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # if this one were read, it would be refused
    summary = run_etl(config)
    assert summary.facts["read"] == "5 new or changed of 13 files"
    assert summary.facts["headline"].endswith("0 quarantined")
    lake = Lake(config.lake)
    old, new = lake.history()
    before, after = ({row["image_id"]: row for row in lake.gold(one, IMAGES).to_pylist()} for one in (old, new))
    assert len(before) == 10 and len(after) == 13, "the old snapshot stays readable"
    assert after["00000001_003"]["height"] == 40 and before["00000001_003"]["height"] == 32
    assert {key: row for key, row in after.items() if key in before and key != "00000001_003"} == {
        key: row for key, row in before.items() if key != "00000001_003"
    }


@pytest.mark.slow
def test_a_lake_of_the_former_schema_is_built_on(tmp_path: Path) -> None:
    """Builds of labels without `uncertain` stay readable beside new ones, and keep their name when built anew."""
    root, config = tmp_path / "corpus", corpus_config(tmp_path / "corpus", tmp_path / "lake")
    write_plain(root, range(1, 6))
    run_etl(config)
    lake = Lake(config.lake)
    built = lake.snapshot()
    former = lake.write(LABELS, lake.gold(built, LABELS).drop(["uncertain"]))
    lake.publish(replace(built, versions={**built.versions, LABELS: former}, built_at=now()))
    assert run_etl(config).facts["read"] == "nothing"
    assert run_etl(config.model_copy(update={"force": True})).facts["read"] == "0 new or changed of 5 files"
    _, old, again = lake.history()
    assert lake.gold(old, LABELS).column_names == ["image_id", "findings", "targets"]
    assert lake.gold(again, LABELS)["uncertain"].to_pylist() == [[]] * 5
    assert lake.gold(old, LABELS) == lake.gold(again, LABELS).drop(["uncertain"])
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
    for build, images in zip(Lake(config.lake).history(), ("4", "5"), strict=True):
        (line,) = [line for line in lines if build.snapshot_id in line]
        assert line.split("│")[4].strip() == images


def test_missing_files_stay_in_gold_where_they_may(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write_corpus(root)
    os.remove(root / "images_001" / "images" / "00000013_000.png")
    run_etl(corpus_config(root, tmp_path / "lake", "source.images=optional"))
    lake = Lake(str(tmp_path / "lake"))
    snapshot = lake.snapshot()
    rows = {row["image_id"]: row for row in lake.gold(snapshot, IMAGES).to_pylist()}
    bare = rows["00000013_000"]
    assert bare["split"] == "test" and bare["age_years"] == pytest.approx(1 / 365.25)
    assert {name for name, value in bare.items() if value is None} == {
        *("path", "height", "width", "channels", "bytes", "sha256", "pixel_mean", "pixel_std")
    }
    # 00000011 was never there; what has a bad file or a bad row is refused as ever
    assert {image_id for image_id, row in rows.items() if row["path"] is None} == {"00000011_000", "00000013_000"}
    assert snapshot.accounting["gold_without_file"] == 2 and snapshot.accounting["entries_without_file"] == 0
    assert sum(counts["images"] - counts["files"] for counts in snapshot.splits.values()) == 2
    assert "00000013_000" not in lake.usable(snapshot, [])["image_id"].to_pylist(), "never fed to a network"


def test_a_corpus_of_bad_files_is_a_build_that_says_so(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write_plain(root, range(1, 6))
    for path in root.glob("*.png"):
        path.write_bytes(b"<html>sign in</html>")
    summary = run_etl(corpus_config(root, tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"))
    assert summary.rows == 0 and summary.facts["quarantine"] == {"not_an_image": 5}
    assert lake.gold(lake.snapshot(), QUARANTINE).num_rows == 5
    assert lake.gold(lake.snapshot(), IMAGES).num_rows == 0


@pytest.mark.slow
def test_a_patient_in_two_splits_fails_the_build(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    lists = tmp_path / "corpus" / "train_val_list.txt", tmp_path / "corpus" / "test_list.txt"
    lists[0].write_text(lists[0].read_text().replace("00000001_001.png\n", ""))
    lists[1].write_text(lists[1].read_text() + "\n00000001_001.png")
    with pytest.raises(UserError, match=r"patient 00000001 .* test"):
        run_etl(corpus_config(tmp_path / "corpus", tmp_path / "lake"))
    assert Lake(str(tmp_path / "lake")).history() == []
    run_etl(corpus_config(tmp_path / "corpus", tmp_path / "lake", "split.by=hash"))
    images = Lake(str(tmp_path / "lake")).gold(Lake(str(tmp_path / "lake")).snapshot(), IMAGES).to_pylist()
    split = corpus_config(tmp_path / "corpus", tmp_path / "lake").split
    assert {(row["patient_id"], row["split"]) for row in images} == {
        (row["patient_id"], assign_split(row["patient_id"], None, split)) for row in images
    }
    assert "00000012_000" in {row["image_id"] for row in images}, "no list, nothing unlisted"


def test_the_form_of_2020_without_lists_and_boxes_is_split_by_hash(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write_plain(root, range(1, 41))
    config = corpus_config(root, tmp_path / "lake")
    run_etl(config)
    lake = Lake(config.lake)
    images = lake.gold(lake.snapshot(), IMAGES).to_pylist()
    assert {row["patient_id"]: row["split"] for row in images} == {
        f"{patient:08d}": assign_split(f"{patient:08d}", None, config.split) for patient in range(1, 41)
    }
    assert {row["split"] for row in images} == {"train", "val", "test"}
    assert {(row["age_years"], row["study_id"][8:]) for row in images} == {(57.0, "_003")}
    assert lake.gold(lake.snapshot(), BOXES).num_rows == lake.gold(lake.snapshot(), QUARANTINE).num_rows == 0
    assert lake.snapshot().pos_weight == (1.0,) * 14
    with pytest.raises(UserError, match=r"split\.by=official: the source nih has no split of its own"):
        run_etl(corpus_config(root, tmp_path / "lake", "split.by=official"))


def test_several_sources_are_one_build(tmp_path: Path) -> None:
    """NIH beside CheXpert beside folders: one vocabulary, null where a source is silent, one owner of a content."""
    nih, chexpert, folders = (tmp_path / name for name in ("nih", "chexpert", "folders"))
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
    (folders / "Tuberculosis" / "b.png").write_bytes(encode_png(make_noise(1, 32, 32)))  # NIH's patient 1 again
    also = [
        *("+source@also.c=chexpert", f"also.c.root={chexpert}", "also.c.uncertainty=ones"),
        *("+source@also.f=folders", f"also.f.root={folders}"),
    ]
    run_etl(corpus_config(nih, tmp_path / "lake", *also))
    lake = Lake(str(tmp_path / "lake"))
    snapshot = lake.snapshot()
    assert snapshot.source == "nih+chexpert+folders"
    assert snapshot.vocabulary[:14] == NIH14 and set(snapshot.vocabulary) == {*NIH14, *CHEXPERT13, "Tuberculosis"}
    targets = {row["image_id"]: dict(zip(snapshot.vocabulary, row["targets"], strict=True)) for row in _labels(lake)}
    assert targets["00000001_003"] == {name: 0.0 if name in NIH14 else None for name in snapshot.vocabulary}
    film = targets["patient00001_study1_view1_frontal"]
    assert film["Cardiomegaly"] == film["Enlarged_Cardiomediastinum"] == 1.0 and film["Effusion"] == 0.0
    assert film["Hernia"] is None and film["Tuberculosis"] is None
    assert targets["folders:Tuberculosis:a.png"]["Tuberculosis"] == 1.0
    assert targets["folders:Normal:a.png"]["Tuberculosis"] == 0.0
    uncertain = {row["image_id"]: row["uncertain"] for row in _labels(lake)}
    films = {f"patient00001_study1_{view}" for view in ("view1_frontal", "view2_lateral")}
    assert {image_id for image_id, findings in uncertain.items() if findings} == films
    assert all(uncertain[film] == ["Enlarged_Cardiomediastinum"] for film in films)
    assert all(uncertain[image_id] == [] for image_id in targets.keys() - films), "an empty list, not null"
    images = {row["image_id"]: row for row in lake.gold(snapshot, IMAGES).to_pylist()}
    assert {row["source"] for row in images.values()} == {"nih", "chexpert", "folders"} and len(images) == 7
    (copy,) = lake.gold(snapshot, QUARANTINE).to_pylist()
    assert copy["item"].endswith("b.png") and copy["reason"] == "duplicate_content"
    assert images["patient00001_study1_view2_lateral"]["view"] == "lateral"
    assert "patient00001_study1_view2_lateral" not in lake.usable(snapshot, [])["image_id"].to_pylist()
    assert sum(counts["laterals"] for counts in snapshot.splits.values()) == 1


def test_files_of_one_name_are_one_image_only_if_they_agree(tmp_path: Path) -> None:
    """A set with labels=multilabel: `a` lies in two classes, `b` is two images, of `c` one copy is cut."""
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
    run_etl(corpus_config(tmp_path / "set", tmp_path / "lake", "source=folders", "source.labels=multilabel"))
    lake = Lake(str(tmp_path / "lake"))
    labels = {row["image_id"]: row["targets"] for row in _labels(lake)}
    assert labels == {"folders:a.png": [1.0, 1.0], "folders:c.png": [1.0, 1.0], "folders:d.png": [0.0, 0.0]}
    refused = lake.gold(lake.snapshot(), QUARANTINE).to_pylist()
    assert {(row["item"].split("/set/")[1], row["reason"]) for row in refused} == {
        ("Tuberculosis/a.png", "duplicate_file"),
        ("Pneumonia/b.png", "conflicting_file"),
        ("Tuberculosis/b.png", "conflicting_file"),
        ("Pneumonia/c.png", "duplicate_file"),
    }


def _labels(lake: Lake) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.gold(lake.snapshot(), LABELS).to_pylist()
    return rows


def test_a_corpus_without_images_is_refused_before_spark(tmp_path: Path) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_text(ENTRY_HEADER + "\n")
    with pytest.raises(UserError, match=r"holds no image file at any depth"):
        run_etl(corpus_config(tmp_path, tmp_path / "lake"))
