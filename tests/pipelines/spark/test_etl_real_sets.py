"""Public sets as they are re-packaged, through the ETL up to gold and quarantine."""

from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from chestai.config import load as conf
from chestai.config import schema
from chestai.errors import UserError
from pipelines.spark.sources.chexpert import HEADER
from pipelines.spark.sources.nih import BOX_HEADER, ENTRY_HEADER
from tests.support.corpus import encode_png, make_noise, reconcile_corpus


def make_config(source: str, root: Path, *overrides: str) -> schema.Config:
    return conf.load([f"source={source}", "cluster=laptop", f"source.root={root}", f"lake={root}/lake", *overrides])


def write_image(path: Path, seed: int, height: int = 64, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(make_noise(seed, height, width)))


def test_nested_copy_is_kept_once(tmp_path: Path, spark_session: SparkSession) -> None:
    places = [(split, name) for split in ("train", "test") for name in ("NORMAL", "PNEUMONIA")]
    for copy in ("", "chest_xray/"):
        for seed, (split, name) in enumerate(places):
            write_image(tmp_path / f"{copy}{split}/{name}/{seed}.png", seed)
    result = reconcile_corpus(spark_session, make_config("folders", tmp_path))
    assert result.vocabulary == ("Pneumonia",)
    found = sorted((tuple(row["findings"]), row["split"]) for row in result.gold().values())
    assert len(found) == 4 and Counter(split == "test" for _, split in found) == {True: 2, False: 2}
    assert Counter(findings for findings, _ in found) == {(): 2, ("Pneumonia",): 2}
    assert Counter(row["reason"] for row in result.quarantine()) == {"duplicate_content": 4}


def test_same_image_in_two_classes_is_still_a_conflict(tmp_path: Path, spark_session: SparkSession) -> None:
    for name, seed in (("Normal", 1), ("Mass", 1), ("Mass", 2)):
        write_image(tmp_path / name / f"{seed}.png", seed)
    result = reconcile_corpus(spark_session, make_config("folders", tmp_path))
    assert Counter(row["reason"] for row in result.quarantine()) == {"conflicting_duplicate": 2}
    assert [row["findings"] for row in result.gold().values()] == [["Mass"]]


def write_nih(root: Path, sizes: dict[str, tuple[int, int]], boxes: list[str], encoding: str = "utf-8") -> None:
    """A set of images (number -> height and width), and rows of the box list from the image number on."""
    rows = [f"{number}_000.png,Mass,000,{number},050Y,F,PA,2682,2749,0.1,0.1" for number in sizes]
    (root / "Data_Entry_2017.csv").write_bytes("\r\n".join([ENTRY_HEADER + ",", *rows]).encode(encoding))
    (root / "BBox_List_2017.csv").write_bytes("\n".join([BOX_HEADER + ",,,", *boxes]).encode(encoding))
    for number, (height, width) in sizes.items():
        write_image(root / "images" / f"{number}_000.jpg", int(number), height, width)


@pytest.mark.slow
def test_boxes_of_1024_pixels_are_scaled_to_smaller_squares(tmp_path: Path, spark_session: SparkSession) -> None:
    """In a set with converted files and tables in UTF-16 besides."""
    sizes = {"00000001": (64, 64), "00000002": (64, 48), "00000003": (1024, 1024)}
    boxes = [f"{number}_000.png,Mass,{box}" for number in sizes for box in ("512,256,128,64", "900,900,200,10")]
    write_nih(tmp_path, sizes, boxes, "utf-16")
    result = reconcile_corpus(spark_session, make_config("nih", tmp_path))
    assert set(result.gold()) == {f"{number}_000" for number in sizes}
    placed = {
        (row["image_id"], row["x"], row["y"], row["w"], row["h"])
        for row in result.rows.boxes.where("in_gold").collect()
    }
    assert placed == {("00000001_000", 32, 16, 8, 4), ("00000003_000", 512, 256, 128, 64)}
    assert Counter((row["reason"], row["detail"]) for row in result.quarantine()) == {
        ("box_off_image", "drawn on a square image, and the file has 48 x 64 pixels: source.box_pixels"): 2,
        ("box_off_image", "it reaches outside the file's 64 x 64 pixels: source.box_pixels"): 1,
        ("box_off_image", "it reaches outside the file's 1024 x 1024 pixels: source.box_pixels"): 1,
    }
    accounting = result.accounting
    assert (accounting["boxes"], accounting["gold_boxes"], accounting["quarantined_boxes"]) == (6, 2, 4)
    own = reconcile_corpus(spark_session, make_config("nih", tmp_path, "source.box_pixels=null"))
    assert own.accounting["gold_boxes"] == 1


def test_converted_files_of_chexpert_are_matched_by_stem(tmp_path: Path, spark_session: SparkSession) -> None:
    row = ",Female,68,Frontal,AP" + "," * 14
    names = [f"patient0000{number}/study1/view1_frontal" for number in (1, 2)]
    (tmp_path / "train.csv").write_text(
        "\n".join([HEADER, *(f"CheXpert-v1.0/train/{name}.jpg{row}" for name in names)])
    )
    for seed, name in enumerate(names):
        write_image(tmp_path / "PNG" / "train" / f"{name}.png", seed)
    result = reconcile_corpus(spark_session, make_config("chexpert", tmp_path))
    assert set(result.gold()) == {"patient00001_study1_view1_frontal", "patient00002_study1_view1_frontal"}
    assert [line.split(",")[0] for line in result.guesses] == [
        "chexpert: 2 files matched with train.csv although the suffix differs",
        "chexpert: no official split",
    ]


def test_table_of_other_images_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    write_nih(tmp_path, {"00000001": (64, 64)}, [])
    (tmp_path / "images/00000001_000.jpg").rename(tmp_path / "images/00000001_001.jpg")
    with pytest.raises(
        UserError, match=r"names none of the 1 image files: nearest to 00000001_001\.jpg is 00000001_000"
    ):
        reconcile_corpus(None, make_config("nih", tmp_path))  # type: ignore[arg-type]  # it ends before Spark
