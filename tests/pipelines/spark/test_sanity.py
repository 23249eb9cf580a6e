"""Nonsense that is in perfect form: what stops a build, what it warns of, and what it lets pass."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyspark.sql import SparkSession

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.imaging.preprocess import Grey
from chestai.lake.lake import Lake
from chestai.lake.remark import Remark
from pipelines.spark.sanity.checks import check_sanity
from pipelines.spark.sanity.shortcuts import bin_numbers, measure_shortcut
from pipelines.spark.sources.chexpert import FIELDS, HEADER
from pipelines.spark.sources.nih import BOX_HEADER, ENTRY_HEADER
from tests.support.corpus import corpus_config, encode_png, make_noise, reconcile_corpus, run_etl
from tests.support.foreign_images import lateral

Check = Callable[..., tuple[Remark, ...]]


def draw_clouds(seed: int, side: int = 256) -> Grey:
    """A smooth image unlike that of any other seed."""
    return cv2.resize(make_noise(seed, 8, 8), (side, side), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def write_nih(root: Path, images: dict[str, Grey], findings: Sequence[str], boxes: Sequence[str] = ()) -> None:
    """Images by their path below the root, each of a patient of its own."""
    rows = [
        f"{path.rsplit('/', 1)[-1]},{finding},000,{path[-16:-8]},050Y,F,PA,64,64,0.1,0.1"
        for path, finding in zip(images, findings, strict=True)
    ]
    for path, pixels in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encode_png(pixels))
    (root / "Data_Entry_2017.csv").write_text("\n".join([ENTRY_HEADER, *rows]))
    if boxes:
        (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]))


@pytest.fixture
def reconciled(spark_session: SparkSession, tmp_path: Path) -> Callable[..., Check]:
    """Return a function that reconciles what lies at `tmp_path` once, for checks with limits of any kind."""

    def reconcile(*overrides: str) -> Check:
        corpus = reconcile_corpus(spark_session, corpus_config(tmp_path, tmp_path / "lake", *overrides))

        def check(*limits: str) -> tuple[Remark, ...]:
            config = corpus_config(tmp_path, tmp_path / "lake", *overrides, *limits)
            return check_sanity(config, corpus.rows, corpus.vocabulary, lambda check: None)

        return check

    return reconcile


@pytest.mark.slow
def test_boxes_off_their_images_stop_a_build_before_it_is_published(
    spark_session: SparkSession, tmp_path: Path
) -> None:
    images = {f"images/{patient:08}_000.png": make_noise(patient) for patient in range(1, 25)}
    names = [path.rsplit("/", 1)[-1] for path in images]
    boxes = [f"{name},Mass,{60 if at < 3 else 1},1,20,20" for at, name in enumerate(names)]
    write_nih(tmp_path, images, ["Mass"] * 24, boxes)
    lake = Lake(str(tmp_path / "lake"))
    with pytest.raises(UserError) as stopped:
        run_etl(corpus_config(tmp_path, tmp_path / "lake"))
    assert str(stopped.value) == (
        "3 of 24 boxes do not fit on their images: that is 12.5%, and sanity.boxes_off_image=0.05 allows 5.0%: set "
        "source.box_pixels to the side of the images that they were drawn on, or correct the table, or accept it with "
        "sanity.boxes_off_image=0.13"
    )
    assert lake.list_snapshots() == []

    summary = run_etl(corpus_config(tmp_path, tmp_path / "lake", "sanity.boxes_off_image=0.13"))
    (snapshot,) = lake.list_snapshots()
    warning = "3 of 24 boxes do not fit on their images (sanity.boxes_off_image)"
    assert snapshot.warnings == (warning,) and snapshot.accounting["quarantined_boxes"] == 3
    assert summary.facts["warned"] == warning
    assert summary.facts["headline"] == f"snapshot {snapshot.snapshot_id}, 3 quarantined, 1 warned of"
    assert warning in Path(summary.facts["page"]).read_text()


def test_flat_images_stop_or_warn(reconciled: Callable[..., Check], tmp_path: Path) -> None:
    images = {f"{patient:08}_000.png": make_noise(patient) for patient in range(1, 25)}
    images["00000001_000.png"] = np.full((64, 64), 90, np.uint8)
    images["00000002_000.png"] = np.clip(make_noise(2), 100, 115)
    images["00000003_000.png"][:62] = 7  # a film with a margin shows something, this one hardly
    write_nih(tmp_path, images, ["Mass"] * 24)
    check = reconciled()
    with pytest.raises(UserError, match=r"^3 of 24 images show next to nothing .* such as 00000001_000: that is 12.5%"):
        check()
    (remark,) = check("sanity.flat_images=0.125")
    assert remark.warns and remark.text.startswith("3 of 24 images show next to nothing")
    assert remark.examples[0] == ("00000001_000",) and len(remark.examples) == 3
    (remark,) = check("sanity.min_count=25")  # too few to stop
    assert remark.warns


def test_copies_across_splits_stop_or_warn(reconciled: Callable[..., Check], tmp_path: Path) -> None:
    for at in range(60):
        path = tmp_path / ("test" if at % 2 else "train") / ("Mass" if at % 3 else "Normal") / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(draw_clouds(at)))
    copy = cv2.imencode(".jpg", cv2.resize(draw_clouds(4), (224, 224), interpolation=cv2.INTER_AREA))[1].tobytes()
    (tmp_path / "test" / "Mass" / "copy.jpg").write_bytes(copy)
    (tmp_path / "train" / "Mass" / "same_split.jpg").write_bytes(
        cv2.imencode(".jpg", draw_clouds(10), [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    )
    check = reconciled("source=folders", "split.val_fraction=0.01")
    with pytest.raises(UserError, match=r"^1 of 31 val and test images are copies of an image in another split"):
        check()
    # The class is in the folder, which is no shortcut where it is the label: there is no other remark.
    (remark,) = check("sanity.copied_images=0.04")
    assert remark.warns and remark.examples == (("folders:test:Mass:copy.jpg", "folders:train:Mass:4.png"),)


def test_shortcuts_are_warned_of(reconciled: Callable[..., Check], tmp_path: Path) -> None:
    patients = range(1, 81)
    findings = ["Mass" if patient % 2 else "Edema" if patient % 4 else "No Finding" for patient in patients]
    images = {
        f"{finding[:2]}/{patient:08}_000.png": make_noise(patient, 64, 80 if finding == "Mass" else 64)
        for patient, finding in zip(patients, findings, strict=True)
    }
    write_nih(tmp_path, images, findings)
    check = reconciled()
    told = [remark.text for remark in check() if remark.warns]
    assert [line.split(" of a file")[0] for line in told] == ["the file size", "the width", "the folder"]
    assert "Mass (AUROC 1.000)" in told[1] and "Edema" not in told[1]
    assert "Mass (AUROC 1.000)" in told[2] and "Edema (AUROC 1.000)" in told[2]
    assert not check("sanity.min_count=41")


def test_shortcut_that_holds_within_patients_only_is_none() -> None:
    chance = np.random.default_rng(1)
    patient = np.repeat(np.arange(100), 5)
    targets = chance.integers(0, 2, 100)[patient].astype(np.float32)
    targets[:7] = np.nan
    assert measure_shortcut(patient, targets, patient % 2 == 0, 20) == pytest.approx(0.5, abs=0.1)
    assert measure_shortcut(np.nan_to_num(targets).astype(np.intp), targets, patient % 2 == 0, 20) == 1.0


def test_rare_value_beside_a_usual_one_has_its_own_bin() -> None:
    bins = bin_numbers([1024] * 500 + [299, 2048])
    assert len({bins[0], bins[-2], bins[-1]}) == 3 and len(set(bins)) == 3
    assert not len(bin_numbers([]))


def draw_frontal(chance: np.random.Generator) -> Grey:
    """Two dark lungs beside a bright middle."""
    x = np.linspace(-1, 1, 64)[None]
    scene = 0.8 - 0.6 * np.exp(-(((np.abs(x) - chance.uniform(0.4, 0.5)) / 0.2) ** 2)) * np.ones((64, 1))
    return np.clip(255 * scene + chance.normal(0, 12, (64, 64)), 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_views_by_pixels_are_compared_with_tags(reconciled: Callable[..., Check], tmp_path: Path) -> None:
    chance, rows = np.random.default_rng(4), []
    for patient in range(120):
        is_lateral = patient % 2 == 1
        shown = lateral(np.zeros((64, 64), np.uint8), chance) if is_lateral else draw_frontal(chance)
        shown = cv2.addWeighted(shown, 0.7, draw_clouds(patient, 64), 0.3, 0).astype(np.uint8)
        # Three frontals are tagged lateral. Eleven films without a projection, one of them a lateral, have no tag.
        tag = "Lateral" if (is_lateral and patient != 119) or patient in (0, 2, 4) else "Frontal"
        untagged = patient == 119 or (patient >= 100 and not is_lateral)
        projection = "" if tag == "Lateral" or untagged else "AP"
        path = f"train/patient{patient:05}/study1/view1_{tag.lower()}.jpg"
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(encode_png(shown))
        fields = dict.fromkeys(FIELDS, "") | {"Path": f"CheXpert-v1.0-small/{path}", "Sex": "Female", "Age": "60"}
        fields |= {"Frontal/Lateral": tag, "AP/PA": projection}
        rows.append(",".join(fields.values()))
    (tmp_path / "train.csv").write_text("\n".join([HEADER, *rows]))
    check = reconciled("source=chexpert")
    (remark,) = check("sanity.view_count=40")
    assert remark.warns and remark.text == (
        "a detector of laterals agrees with 97.2% of 109 views by tag, and 3 images clearly look like the other view; "
        "of 11 without a tag 1 look lateral (sanity.contradicted_views)"
    )
    assert {name.split("_")[0] for (name,) in remark.examples} == {f"patient{number:05}" for number in (0, 2, 4, 119)}
    (remark,) = check("sanity.view_count=40", "sanity.contradicted_views=0.1")
    assert not remark.warns
    assert check() == (), "too few of either"


def test_limits_that_are_no_shares_are_refused() -> None:
    with pytest.raises(UserError, match=r"sanity\.flat_images=5"):
        conf.load(["sanity.flat_images=5"])
