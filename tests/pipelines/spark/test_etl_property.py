"""Whatever stands in the label file and the folder: nothing is lost, and no patient is in two splits."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chestai.errors import UserError
from chestai.imaging.errors import REASONS as PIXEL_REASONS
from chestai.labels.findings import NIH14, NO_FINDING
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, QUARANTINE
from pipelines.spark.reconcile import REASONS
from pipelines.spark.sources.nih import ENTRY_HEADER
from tests.support.corpus import corpus_config, encode_png, make_noise, run_etl

pytestmark = pytest.mark.usefixtures("spark_session")

GOOD = {seed: encode_png(make_noise(seed, 32, 32)) for seed in range(6)}
CONTENTS = [*GOOD.values(), GOOD[0][:200], b"", b"<html>", encode_png(make_noise(9, 8, 8))]

# Few patients and names, so that doubles, collisions and contradictions are the rule.
names = st.builds("{:08d}_{:03d}.png".format, st.integers(1, 6), st.integers(0, 2))
patients = st.one_of(st.integers(1, 6).map(str), st.sampled_from(["", "x", "00000002", "-1"]))
known = st.lists(st.sampled_from(NIH14), min_size=1, max_size=3).map("|".join)
findings = st.one_of(known, known, st.just(NO_FINDING), st.sampled_from(["", "Gout", "effusion", "Mass|No Finding"]))
ages = st.sampled_from(["058Y", "414Y", "013M", "58", "", "old"])
anything = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40)


def consistent(name: str, label: str, age: str, sex: str, view: str) -> str:
    return f"{name},{label},0,{name[:8]},{age},{sex},{view},1,1,1,1"


sexes, views = st.sampled_from(["M", "F", ""]), st.sampled_from(["PA", "AP", ""])
good = st.builds(consistent, names, findings, ages, sexes, views)
odd = st.builds("{},{},0,{},{},{},PA,1,1,1,1".format, names, findings, patients, ages, st.sampled_from("MFX"))
rows = st.one_of(good, good, good, odd, anything.filter(lambda text: text.strip()), st.just('"unclosed,'))
folders = st.sampled_from(["", "images_001/images", "images_002/images"])
files = st.dictionaries(
    st.tuples(folders, st.one_of(names, st.just("stray.png"))), st.sampled_from(CONTENTS), min_size=1
)
every_name = [f"{patient:08d}_{study:03d}.png" for patient in range(1, 7) for study in range(3)]
by_patient = st.fixed_dictionaries({patient: st.booleans() for patient in range(1, 7)}).map(
    lambda test: {name: test[int(name[:8])] for name in every_name if name != every_name[0]}
)
lists = st.one_of(st.none(), by_patient, by_patient, st.dictionaries(names, st.booleans(), min_size=4))


builds = given(
    table=st.lists(rows, min_size=30, max_size=80),
    found=files,
    listed=lists,
    optional=st.booleans(),
)


def examples(count: int) -> settings:
    """The same ones every time; the first of many are the few."""
    every = list(HealthCheck)
    return settings(
        max_examples=count, deadline=None, suppress_health_check=every, phases=[Phase.generate], derandomize=True
    )


@examples(3)
@builds
def test_nothing_is_lost(
    table: list[str], found: dict[tuple[str, str], bytes], listed: dict[str, bool] | None, optional: bool
) -> None:
    build_and_check(table, found, listed, optional)


@pytest.mark.slow
@examples(20)
@builds
def test_nothing_is_lost_in_more_builds(
    table: list[str], found: dict[tuple[str, str], bytes], listed: dict[str, bool] | None, optional: bool
) -> None:
    build_and_check(table, found, listed, optional)


def build_and_check(
    table: list[str], found: dict[tuple[str, str], bytes], listed: dict[str, bool] | None, optional: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, lake = Path(folder) / "corpus", Lake(f"{folder}/lake")
        root.mkdir()
        (root / "Data_Entry_2017.csv").write_text("\n".join([ENTRY_HEADER, *table]), encoding="utf-8", newline="")
        for (under, name), content in found.items():
            (root / under).mkdir(parents=True, exist_ok=True)
            (root / under / name).write_bytes(content)
        if listed is not None:
            for name, is_test in (("test_list.txt", True), ("train_val_list.txt", False)):
                (root / name).write_text("\n".join(image for image in listed if listed[image] == is_test))
        config = corpus_config(root, Path(lake.root), f"source.images={'optional' if optional else 'required'}")
        try:
            run_etl(config)
        except UserError as error:  # the one thing that stops a build
            assert listed is not None and "has images in the splits" in str(error)
            assert lake.history() == []
            return
        check(lake, len(table), len(found))


def check(lake: Lake, entries: int, files: int) -> None:
    """Count again, from the tables alone."""
    snapshot = lake.snapshot()
    account = snapshot.accounting
    images, refused = (lake.gold(snapshot, table).to_pylist() for table in (IMAGES, QUARANTINE))
    assert account["entries"] == entries and account["files"] == files
    assert account["gold"] == len(images) == len({row["image_id"] for row in images})
    assert account["quarantined"] == len(refused)
    assert entries == len(images) + account["quarantined_entries"] + account["entries_without_file"]
    assert files == sum(row["path"] is not None for row in images) + account["quarantined_files"]
    paths = Counter(row["path"] for row in images if row["path"] is not None)
    paths.update(row["item"] for row in refused if row["item"].startswith(lake.root.removesuffix("lake")))
    assert sum(paths.values()) == files and set(paths.values()) == {1}, "each file is in one place, once"
    assert {row["reason"] for row in refused} <= {*REASONS, *PIXEL_REASONS}
    assert all(row["detail"] for row in refused)
    splits = {(row["patient_id"], row["split"]) for row in images}
    assert len(splits) == len({patient for patient, _ in splits})
    assert {split for _, split in splits} <= {"train", "val", "test"}
