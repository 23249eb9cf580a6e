"""Whatever is in the label file and the folder: nothing is lost, and no patient is in two splits."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging.errors import REASONS as PIXEL_REASONS
from chestai.labels.findings import NIH14, NO_FINDING
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, QUARANTINE
from pipelines.spark.reconcile import REASONS
from pipelines.spark.sources.nih import ENTRY_HEADER
from tests.support.corpus import corpus_config, encode_png, make_noise, reconcile_corpus, run_etl

GOOD = {seed: encode_png(make_noise(seed, 32, 32)) for seed in range(6)}
CONTENTS = [*GOOD.values(), GOOD[0][:200], b"", b"<html>", encode_png(make_noise(9, 8, 8))]

# Few patients and names, so that duplicates, collisions and contradictions are the rule.
names = st.builds("{:08d}_{:03d}.png".format, st.integers(1, 6), st.integers(0, 2))
patients = st.one_of(st.integers(1, 6).map(str), st.sampled_from(["", "x", "00000002", "-1"]))
valid_findings = st.lists(st.sampled_from(NIH14), min_size=1, max_size=3).map("|".join)
other_findings = st.sampled_from(["", "Gout", "effusion", "Mass|No Finding"])
findings = st.one_of(valid_findings, valid_findings, st.just(NO_FINDING), other_findings)
ages = st.sampled_from(["058Y", "414Y", "013M", "58", "", "old"])
sexes, views = st.sampled_from(["M", "F", ""]), st.sampled_from(["PA", "AP", ""])
any_text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40)


def consistent_row(name: str, label: str, age: str, sex: str, view: str) -> str:
    return f"{name},{label},0,{name[:8]},{age},{sex},{view},1,1,1,1"


good = st.builds(consistent_row, names, findings, ages, sexes, views)
odd = st.builds("{},{},0,{},{},{},PA,1,1,1,1".format, names, findings, patients, ages, st.sampled_from("MFX"))
rows = st.one_of(good, good, good, odd, any_text.filter(lambda text: text.strip()), st.just('"unclosed,'))
folders = st.sampled_from(["", "images_001/images", "images_002/images"])
image_files = st.dictionaries(
    st.tuples(folders, st.one_of(names, st.just("stray.png"))), st.sampled_from(CONTENTS), min_size=1
)
every_name = [f"{patient:08d}_{study:03d}.png" for patient in range(1, 7) for study in range(3)]
lists_by_patient = st.fixed_dictionaries({patient: st.booleans() for patient in range(1, 7)}).map(
    lambda test: {name: test[int(name[:8])] for name in every_name if name != every_name[0]}
)
split_lists = st.one_of(
    st.none(), lists_by_patient, lists_by_patient, st.dictionaries(names, st.booleans(), min_size=4)
)


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "table": draw(st.lists(rows, min_size=30, max_size=80)),
        "files": draw(image_files),
        "lists": draw(split_lists),
        "images": draw(st.sampled_from(["optional", "required"])),
    }


def examples(count: int) -> settings:
    """The same examples every time; the first of many are the few."""
    checks = list(HealthCheck)
    return settings(
        max_examples=count, deadline=None, suppress_health_check=checks, phases=[Phase.generate], derandomize=True
    )


@examples(2)
@given(corpus=corpora())
def test_reconciling_loses_nothing(spark_session: SparkSession, corpus: dict[str, Any]) -> None:
    reconcile_and_check(spark_session, corpus)


@pytest.mark.slow
@examples(20)
@given(corpus=corpora())
def test_reconciling_loses_nothing_in_more_corpora(spark_session: SparkSession, corpus: dict[str, Any]) -> None:
    reconcile_and_check(spark_session, corpus)


@pytest.mark.slow
@examples(6)
@given(corpus=corpora())
def test_build_loses_nothing(spark_session: SparkSession, corpus: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = write(Path(folder), corpus)
        lake = Lake(config.lake)
        try:
            run_etl(config)
        except UserError as error:
            check_refusal(error, corpus)
            assert lake.list_snapshots() == []
            return
        snapshot = lake.find_snapshot()
        gold, quarantine = (lake.read_gold(snapshot, table).to_pylist() for table in (IMAGES, QUARANTINE))
        check(corpus, folder, snapshot.accounting, gold, quarantine)


def reconcile_and_check(session: SparkSession, corpus: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = reconcile_corpus(session, write(Path(folder), corpus))
        except UserError as error:
            check_refusal(error, corpus)
            return
        check(corpus, folder, result.accounting, list(result.gold().values()), result.quarantine())


def check_refusal(error: UserError, corpus: dict[str, Any]) -> None:
    """Only a table that names none of the files, or a patient in two splits, may stop a build."""
    if "names none of the" in str(error):
        named = {row.split(",")[0] for row in corpus["table"]}
        assert named.isdisjoint(name for _, name in corpus["files"])
    else:
        assert corpus["lists"] is not None and "has images in the splits" in str(error)


def write(folder: Path, corpus: dict[str, Any]) -> Config:
    root = folder / "corpus"
    root.mkdir()
    table = "\n".join([ENTRY_HEADER, *corpus["table"]])
    (root / "Data_Entry_2017.csv").write_text(table, encoding="utf-8", newline="")
    for (subfolder, name), content in corpus["files"].items():
        (root / subfolder).mkdir(parents=True, exist_ok=True)
        (root / subfolder / name).write_bytes(content)
    if (lists := corpus["lists"]) is not None:
        for name, is_test in (("test_list.txt", True), ("train_val_list.txt", False)):
            (root / name).write_text("\n".join(image for image in lists if lists[image] == is_test))
    return corpus_config(root, folder / "lake", f"source.images={corpus['images']}")


def check(
    corpus: dict[str, Any],
    folder: str,
    account: dict[str, int],
    gold: Sequence[dict[str, Any]],
    quarantine: Sequence[dict[str, Any]],
) -> None:
    """Count again, from the rows alone."""
    entries, files = len(corpus["table"]), len(corpus["files"])
    assert account["entries"] == entries and account["files"] == files
    assert account["gold"] == len(gold) == len({row["image_id"] for row in gold})
    assert account["quarantined"] == len(quarantine)
    assert entries == len(gold) + account["quarantined_entries"] + account["entries_without_file"]
    assert files == sum(row["path"] is not None for row in gold) + account["quarantined_files"]
    paths = Counter(row["path"] for row in gold if row["path"] is not None)
    paths.update(row["item"] for row in quarantine if row["item"].startswith(folder))
    assert sum(paths.values()) == files and set(paths.values()) == {1}, "each file is in one table, once"
    assert {row["reason"] for row in quarantine} <= {*REASONS, *PIXEL_REASONS}
    assert all(row["detail"] for row in quarantine)
    splits = {(row["patient_id"], row["split"]) for row in gold}
    assert len(splits) == len({patient for patient, _ in splits})
    assert {split for _, split in splits} <= {"train", "val", "test"}
