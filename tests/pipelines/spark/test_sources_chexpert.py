"""The form of CheXpert, read by Spark and, independently, by the csv module."""

import csv
import io
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import CHEXPERT13
from chestai.labels.uncertainty import policies
from pipelines.data.files import LISTING
from pipelines.spark.sources.chexpert import FIELDS, HEADER, Chexpert
from pipelines.spark.sources.tables import BOX_COLUMNS, ENTRY_COLUMNS

NAMED_OTHERWISE = {"Pleural Effusion": "Effusion"}


def config(root: Path | None, **changes: Any) -> schema.Chexpert:
    settings = {"uncertainty": "ignore", "uncertainty_of": None, "images": "required", **changes}
    return schema.Chexpert(format="chexpert", name="chexpert", root=None if root is None else str(root), **settings)


def path_of(patient: int, view: str = "view1_frontal.jpg", split: str = "train") -> str:
    return f"CheXpert-v1.0-small/{split}/patient{patient:05}/study1/{view}"


def row(path: str, *, columns: Mapping[str, str] | None = None, **labels: str) -> str:
    """A line of the table: a woman of 68, frontal, AP, and what is given otherwise (`_` for a blank)."""
    said = dict.fromkeys(FIELDS, "") | {"Path": path, "Sex": "Female", "Age": "68"}
    said |= {"Frontal/Lateral": "Frontal", "AP/PA": "AP"}
    said |= {name.replace("_", " "): value for name, value in labels.items()} | dict(columns or {})
    assert list(said) == FIELDS
    return ",".join(said.values())


def write(root: Path, table: str, lines: Sequence[str], header: str = HEADER) -> None:
    (root / table).write_text("".join(f"{line}\n" for line in (header, *lines)), newline="")


def entries(root: Path, spark_session: SparkSession, **changes: Any) -> list[Row]:
    frame = Chexpert.find(config(root, **changes)).read_entries(spark_session)
    assert frame.dtypes == spark_session.createDataFrame([], ENTRY_COLUMNS).dtypes
    return sorted(frame.collect(), key=lambda entry: (entry.listed or "", entry.line))


def entry(root: Path, spark_session: SparkSession, line: str, **changes: Any) -> Row:
    """What becomes of one line."""
    write(root, "train.csv", [line])
    (only,) = entries(root, spark_session, **changes)
    return only


def published(count: int, split: str) -> list[str]:
    """Lines of every quirk of the published tables, the same at every call."""
    chance = random.Random(f"chexpert {split}")
    spelling = ("1.0", "0.0", "-1.0", "") if split == "train" else ("1", "0", "1.0", "0.0")
    lines = []
    for number in range(1, count + 1):
        lateral = chance.random() < 0.2
        columns = {
            "Sex": chance.choice(["Male", "Female", "Male", "Female", "Unknown"]),
            "Age": str(chance.choice([0, 18, 45, 68, 90])),
            "Frontal/Lateral": "Lateral" if lateral else "Frontal",
            "AP/PA": "" if lateral else chance.choice(["AP", "AP", "PA", "LL", "RL", ""]),
        }
        labels = {name.replace(" ", "_"): chance.choice(spelling) for name in FIELDS[5:]}
        view = "view2_lateral.jpg" if lateral else "view1_frontal.jpg"
        offset = 0 if split == "train" else 64540
        lines.append(row(path_of(offset + number, view, split), columns=columns, **labels))
    return lines


@pytest.mark.parametrize("uncertainty", ["ignore", "ones", "zeros", "irvin2019", "yuan2021"])
def test_published_rows_are_counted_as_the_csv_module_counts_them(
    tmp_path: Path, spark_session: SparkSession, uncertainty: str
) -> None:
    tables = {"train.csv": published(120, "train"), "valid.csv": published(30, "valid")}
    for table, lines in tables.items():
        write(tmp_path, table, lines)
    found = entries(tmp_path, spark_session, uncertainty=uncertainty, uncertainty_of={"Fracture": "ones"})
    assert [entry.reason for entry in found] == [None] * 150

    policy = policies(uncertainty, {"Fracture": "ones"})
    unclear = {"ones": "1", "zeros": "0", "ignore": "unknown"}
    wanted: Counter[tuple[str, str]] = Counter()
    for table, listed in (("train.csv", "train_val"), ("valid.csv", "test")):
        for said in csv.DictReader(io.StringIO((tmp_path / table).read_text())):
            frontal = said["Frontal/Lateral"] == "Frontal"
            view = {"AP": "AP", "PA": "PA"}.get(said["AP/PA"], "None") if frontal else "lateral"
            wanted.update([("listed", listed), ("view", view), ("age", f"{float(said['Age'])}")])
            wanted["sex", {"Male": "M", "Female": "F", "Unknown": "None"}[said["Sex"]]] += 1
            for column in FIELDS[6:]:
                name = NAMED_OTHERWISE.get(column, column.replace(" ", "_"))
                value = int(float(said[column] or 0))
                wanted[name, unclear[policy[name]] if value == -1 else str(value)] += 1
                wanted["uncertain", name] += value == -1

    counted: Counter[tuple[str, str]] = Counter()
    for one in found:
        counted.update([("listed", one.listed), ("view", str(one.view)), ("age", str(one.age_years))])
        counted["sex", str(one.sex)] += 1
        counted.update(("uncertain", name) for name in one.uncertain)
        for name, target in zip(CHEXPERT13, one.targets, strict=True):
            counted[name, "unknown" if target is None else str(int(target))] += 1
        assert one.findings == [name for name, target in zip(CHEXPERT13, one.targets, strict=True) if target == 1]
    assert counted == wanted


def test_a_row_names_its_image_patient_and_study(tmp_path: Path, spark_session: SparkSession) -> None:
    line = row("CheXpert-v1.0/train/patient00007/study12/view3_lateral.jpg", Pleural_Effusion="1.0")
    got = entry(tmp_path, spark_session, line)
    assert (got.line, got.text, got.reason, got.detail) == (2, line, None, None)
    assert got.key == "patient00007/study12/view3_lateral.jpg"
    assert got.image_id == "patient00007_study12_view3_lateral"
    assert (got.patient_id, got.study_id) == ("patient00007", "patient00007_study12")
    assert got.findings == ["Effusion"] and len(got.targets) == 13


@pytest.mark.parametrize("uncertainty", ["ignore", "ones", "zeros"])
def test_what_was_uncertain_is_remembered_whatever_became_of_it(
    tmp_path: Path, spark_session: SparkSession, uncertainty: str
) -> None:
    write(
        tmp_path,
        "train.csv",
        [row(path_of(1), Pleural_Effusion="-1", Lung_Lesion="-1.0", Edema="1.0", No_Finding="-1.0"), row(path_of(2))],
    )
    found = entries(tmp_path, spark_session, uncertainty=uncertainty)
    assert [one.uncertain for one in found] == [["Lung_Lesion", "Effusion"], []]
    taken = {"ignore": None, "ones": 1.0, "zeros": 0.0}[uncertainty]
    assert [found[0].targets[CHEXPERT13.index(name)] for name in ("Lung_Lesion", "Effusion", "Edema")] == [
        *(taken, taken, 1.0)
    ]


def test_the_key_of_an_image_is_that_of_its_row_in_any_release(tmp_path: Path, spark_session: SparkSession) -> None:
    write(tmp_path, "train.csv", [row(path_of(1))])
    names = [
        "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view2_lateral.jpg",
        "stray.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = Chexpert.find(config(tmp_path))
    assert source.list_images().schema == LISTING
    keys = dict(zip(*(source.list_images()[name].to_pylist() for name in ("path", "key")), strict=True))
    assert keys == {
        names[0]: "patient00001/study1/view1_frontal.jpg",
        names[1]: "patient00002/study1/view2_lateral.jpg",
        "stray.jpg": "stray.jpg",
    }
    assert [one.key for one in source.read_entries(spark_session).collect()] == [keys[names[0]]]


def test_a_bad_row_is_refused_with_its_file_and_line(tmp_path: Path, spark_session: SparkSession) -> None:
    bad = [
        ("nonsense", "not 19 fields"),
        (row(path_of(1)) + ",1.0", "not 19 fields"),
        (row("CheXpert-v1.0-small/train/patient00001/view1_frontal.jpg"), "Path does not end as"),
        (row("00000001_000.png"), "Path does not end as"),
        (row(""), "Path does not end as"),
        (row(path_of(1), columns={"Sex": "male?"}), "Sex is none of"),
        (row(path_of(1), columns={"Frontal/Lateral": ""}), "Frontal/Lateral is neither"),
        (row(path_of(1), columns={"Frontal/Lateral": "AP"}), "Frontal/Lateral is neither"),
        (row(path_of(1), columns={"AP/PA": "oblique"}), "AP/PA is none of"),
        (row(path_of(1), Edema="2.0"), "Edema is none of"),
        (row(path_of(1), Pleural_Other="yes"), "Pleural Other is none of"),
        (row(path_of(1), No_Finding="?"), "No Finding is none of"),
    ]
    write(tmp_path, "train.csv", [line for line, _ in bad])
    for number, ((line, problem), got) in enumerate(zip(bad, entries(tmp_path, spark_session), strict=True), 2):
        assert (got.reason, got.text, got.line) == ("entry_unparsable", line, number)
        assert got.detail.startswith(f"train.csv line {number}: {problem}")


def test_the_line_of_a_bad_row_is_of_its_own_file(tmp_path: Path, spark_session: SparkSession) -> None:
    write(tmp_path, "train.csv", [row(path_of(1)), row(path_of(2), Edema="x")])
    write(tmp_path, "valid.csv", [row(path_of(3), Edema="x"), row(path_of(4))])
    refused = [one.detail for one in entries(tmp_path, spark_session) if one.reason]
    assert [detail.split(": ")[0] for detail in refused] == ["valid.csv line 2", "train.csv line 3"]


def test_no_finding_is_no_target_and_contradicts_nothing(tmp_path: Path, spark_session: SparkSession) -> None:
    beside: list[dict[str, str]] = [{"Support Devices": "1.0", "Pneumothorax": "0.0"}, {"Fracture": "1.0"}, {}]
    write(tmp_path, "train.csv", [row(path_of(1), columns={"No Finding": "1.0", **labels}) for labels in beside])
    found = entries(tmp_path, spark_session)
    assert [(one.reason, one.findings) for one in found] == [
        (None, ["Support_Devices"]),
        (None, ["Fracture"]),
        (None, []),
    ]
    assert found[2].targets == [0.0] * 13


def test_an_age_that_cannot_be_is_marked(tmp_path: Path, spark_session: SparkSession) -> None:
    ages = {"0": (0.0, False), "90": (90.0, False), "150": (None, True), "": (None, False)}
    write(tmp_path, "train.csv", [row(path_of(1), columns={"Age": age}) for age in ages])
    found = entries(tmp_path, spark_session)
    assert [(one.age_years, one.impossible_age) for one in found] == list(ages.values())
    assert [one.reason for one in found] == [None] * len(ages)


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path, spark_session: SparkSession) -> None:
    text = "\r\n".join(["\ufeff" + HEADER, row(path_of(1), Support_Devices="1.0"), "", row(path_of(2)), ""])
    (tmp_path / "train.csv").write_text(text, newline="")
    found = entries(tmp_path, spark_session)
    assert [(one.line, one.reason, one.findings) for one in found] == [(2, None, ["Support_Devices"]), (4, None, [])]


@pytest.mark.parametrize("table", ["train.csv", "valid.csv"])
def test_one_table_alone_is_no_official_split(tmp_path: Path, spark_session: SparkSession, table: str) -> None:
    write(tmp_path, table, [row(path_of(1))])
    source = Chexpert.find(config(tmp_path))
    assert source.tables == (table,) and not source.has_official_split
    assert [one.listed for one in source.read_entries(spark_session).collect()] == [None]


def test_what_was_found_is_said(tmp_path: Path, spark_session: SparkSession) -> None:
    write(tmp_path, "train.csv", [])
    write(tmp_path, "valid.csv", [])
    source = Chexpert.find(config(tmp_path, uncertainty="yuan2021", uncertainty_of={"Fracture": "ignore"}))
    assert source.note == "train.csv and valid.csv; uncertain labels: yuan2021, Fracture ignore"
    assert source.has_official_split and source.vocabulary == CHEXPERT13
    assert not source.keeps_missing and Chexpert.find(config(tmp_path, images="optional")).keeps_missing
    assert source.read_entries(spark_session).count() == 0
    boxes = source.read_boxes(spark_session)
    assert boxes.count() == 0 and boxes.dtypes == spark_session.createDataFrame([], BOX_COLUMNS).dtypes


def test_a_wrong_folder_table_or_policy_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.root is not set"):
        Chexpert.find(config(None))
    with pytest.raises(UserError, match=r"holds neither train\.csv nor valid\.csv"):
        Chexpert.find(config(tmp_path))
    write(tmp_path, "train.csv", [])
    with pytest.raises(UserError, match=r"uncertainty_of names 'Gout'"):
        Chexpert.find(config(tmp_path, uncertainty_of={"Gout": "ones"}))
    write(tmp_path, "valid.csv", ["<html>Sign in</html>"], header="<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"valid\.csv line 1 is '<!DOCTYPE html>', not the header of CheXpert"):
        Chexpert.find(config(tmp_path))
