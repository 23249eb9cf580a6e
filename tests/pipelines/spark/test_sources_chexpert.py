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
from chestai.labels.uncertainty import resolve_policies
from pipelines.data.files import LISTING
from pipelines.spark.sources.chexpert import FIELDS, HEADER, Chexpert
from pipelines.spark.sources.tables import BOX_COLUMNS, ENTRY_COLUMNS

RENAMED = {"Pleural Effusion": "Effusion"}


def make_config(root: Path | None, **changes: Any) -> schema.Chexpert:
    settings = {"uncertainty": "ignore", "uncertainty_of": None, "images": "required", **changes}
    return schema.Chexpert(format="chexpert", name="chexpert", root=None if root is None else str(root), **settings)


def make_path(patient: int, view: str = "view1_frontal.jpg", split: str = "train") -> str:
    return f"CheXpert-v1.0-small/{split}/patient{patient:05}/study1/{view}"


def make_row(path: str, *, columns: Mapping[str, str] | None = None, **labels: str) -> str:
    """Return a row of the table: a woman of 68, frontal, AP, and the given labels (`_` for a blank) and columns."""
    fields = dict.fromkeys(FIELDS, "") | {"Path": path, "Sex": "Female", "Age": "68"}
    fields |= {"Frontal/Lateral": "Frontal", "AP/PA": "AP"}
    fields |= {name.replace("_", " "): value for name, value in labels.items()} | dict(columns or {})
    assert list(fields) == FIELDS
    return ",".join(fields.values())


def write_table(root: Path, table: str, lines: Sequence[str], header: str = HEADER) -> None:
    (root / table).write_text("".join(f"{line}\n" for line in (header, *lines)), newline="")


def read_entries(root: Path, spark_session: SparkSession, **changes: Any) -> list[Row]:
    frame = Chexpert.find(make_config(root, **changes)).read_entries(spark_session)
    assert frame.dtypes == spark_session.createDataFrame([], ENTRY_COLUMNS).dtypes
    return sorted(frame.collect(), key=lambda entry: (entry.listed or "", entry.line))


def read_entry(root: Path, spark_session: SparkSession, line: str, **changes: Any) -> Row:
    """Return the entry of one row."""
    write_table(root, "train.csv", [line])
    (only,) = read_entries(root, spark_session, **changes)
    return only


def make_published_rows(count: int, split: str) -> list[str]:
    """Return rows with every quirk of the published tables, the same at every call."""
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
        lines.append(make_row(make_path(offset + number, view, split), columns=columns, **labels))
    return lines


@pytest.mark.parametrize("uncertainty", ["ignore", "ones", "zeros", "irvin2019", "yuan2021"])
def test_counts_of_published_rows_match_the_csv_module(
    tmp_path: Path, spark_session: SparkSession, uncertainty: str
) -> None:
    tables = {"train.csv": make_published_rows(120, "train"), "valid.csv": make_published_rows(30, "valid")}
    for table, lines in tables.items():
        write_table(tmp_path, table, lines)
    found = read_entries(tmp_path, spark_session, uncertainty=uncertainty, uncertainty_of={"Fracture": "ones"})
    assert [entry.reason for entry in found] == [None] * 150

    policy = resolve_policies(uncertainty, {"Fracture": "ones"})
    value_of_policy = {"ones": "1", "zeros": "0", "ignore": "unknown"}
    expected: Counter[tuple[str, str]] = Counter()
    for table, listed in (("train.csv", "train_val"), ("valid.csv", "test")):
        for fields in csv.DictReader(io.StringIO((tmp_path / table).read_text())):
            frontal = fields["Frontal/Lateral"] == "Frontal"
            view = {"AP": "AP", "PA": "PA"}.get(fields["AP/PA"], "None") if frontal else "lateral"
            expected.update([("listed", listed), ("view", view), ("age", f"{float(fields['Age'])}")])
            expected["sex", {"Male": "M", "Female": "F", "Unknown": "None"}[fields["Sex"]]] += 1
            for column in FIELDS[6:]:
                name = RENAMED.get(column, column.replace(" ", "_"))
                value = int(float(fields[column] or 0))
                expected[name, value_of_policy[policy[name]] if value == -1 else str(value)] += 1
                expected["uncertain", name] += value == -1

    counted: Counter[tuple[str, str]] = Counter()
    for entry in found:
        counted.update([("listed", entry.listed), ("view", str(entry.view)), ("age", str(entry.age_years))])
        counted["sex", str(entry.sex)] += 1
        counted.update(("uncertain", name) for name in entry.uncertain)
        for name, target in zip(CHEXPERT13, entry.targets, strict=True):
            counted[name, "unknown" if target is None else str(int(target))] += 1
        assert entry.findings == [name for name, target in zip(CHEXPERT13, entry.targets, strict=True) if target == 1]
    assert counted == expected


def test_row_gives_image_patient_and_study(tmp_path: Path, spark_session: SparkSession) -> None:
    line = make_row("CheXpert-v1.0/train/patient00007/study12/view3_lateral.jpg", Pleural_Effusion="1.0")
    entry = read_entry(tmp_path, spark_session, line)
    assert (entry.line, entry.text, entry.reason, entry.detail) == (2, line, None, None)
    assert entry.key == "patient00007/study12/view3_lateral.jpg"
    assert entry.image_id == "patient00007_study12_view3_lateral"
    assert (entry.patient_id, entry.study_id) == ("patient00007", "patient00007_study12")
    assert entry.findings == ["Effusion"] and len(entry.targets) == 13


@pytest.mark.parametrize("uncertainty", ["ignore", "ones", "zeros"])
def test_uncertain_findings_are_kept_whatever_the_policy(
    tmp_path: Path, spark_session: SparkSession, uncertainty: str
) -> None:
    write_table(
        tmp_path,
        "train.csv",
        [
            make_row(make_path(1), Pleural_Effusion="-1", Lung_Lesion="-1.0", Edema="1.0", No_Finding="-1.0"),
            make_row(make_path(2)),
        ],
    )
    found = read_entries(tmp_path, spark_session, uncertainty=uncertainty)
    assert [entry.uncertain for entry in found] == [["Lung_Lesion", "Effusion"], []]
    target = {"ignore": None, "ones": 1.0, "zeros": 0.0}[uncertainty]
    assert [found[0].targets[CHEXPERT13.index(name)] for name in ("Lung_Lesion", "Effusion", "Edema")] == [
        *(target, target, 1.0)
    ]


def test_key_of_an_image_is_that_of_its_row_in_any_release(tmp_path: Path, spark_session: SparkSession) -> None:
    write_table(tmp_path, "train.csv", [make_row(make_path(1))])
    names = [
        "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view2_lateral.jpg",
        "stray.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    source = Chexpert.find(make_config(tmp_path))
    assert source.list_images().schema == LISTING
    keys = dict(zip(*(source.list_images()[name].to_pylist() for name in ("path", "key")), strict=True))
    assert keys == {
        names[0]: "patient00001/study1/view1_frontal.jpg",
        names[1]: "patient00002/study1/view2_lateral.jpg",
        "stray.jpg": "stray.jpg",
    }
    assert [entry.key for entry in source.read_entries(spark_session).collect()] == [keys[names[0]]]


def test_bad_row_is_rejected_with_file_and_line(tmp_path: Path, spark_session: SparkSession) -> None:
    bad = [
        ("nonsense", "not 19 fields"),
        (make_row(make_path(1)) + ",1.0", "not 19 fields"),
        (make_row("CheXpert-v1.0-small/train/patient00001/view1_frontal.jpg"), "Path does not end as"),
        (make_row("00000001_000.png"), "Path does not end as"),
        (make_row(""), "Path does not end as"),
        (make_row(make_path(1), columns={"Sex": "male?"}), "Sex is none of"),
        (make_row(make_path(1), columns={"Frontal/Lateral": ""}), "Frontal/Lateral is neither"),
        (make_row(make_path(1), columns={"Frontal/Lateral": "AP"}), "Frontal/Lateral is neither"),
        (make_row(make_path(1), columns={"AP/PA": "oblique"}), "AP/PA is none of"),
        (make_row(make_path(1), Edema="2.0"), "Edema is none of"),
        (make_row(make_path(1), Pleural_Other="yes"), "Pleural Other is none of"),
        (make_row(make_path(1), No_Finding="?"), "No Finding is none of"),
    ]
    write_table(tmp_path, "train.csv", [line for line, _ in bad])
    for number, ((line, problem), entry) in enumerate(zip(bad, read_entries(tmp_path, spark_session), strict=True), 2):
        assert (entry.reason, entry.text, entry.line) == ("entry_unparsable", line, number)
        assert entry.detail.startswith(f"train.csv line {number}: {problem}")


def test_line_of_a_bad_row_is_counted_in_its_own_file(tmp_path: Path, spark_session: SparkSession) -> None:
    write_table(tmp_path, "train.csv", [make_row(make_path(1)), make_row(make_path(2), Edema="x")])
    write_table(tmp_path, "valid.csv", [make_row(make_path(3), Edema="x"), make_row(make_path(4))])
    rejected = [entry.detail for entry in read_entries(tmp_path, spark_session) if entry.reason]
    assert [detail.split(": ")[0] for detail in rejected] == ["valid.csv line 2", "train.csv line 3"]


def test_no_finding_is_not_a_target_and_may_stand_with_findings(tmp_path: Path, spark_session: SparkSession) -> None:
    labels_beside: list[dict[str, str]] = [{"Support Devices": "1.0", "Pneumothorax": "0.0"}, {"Fracture": "1.0"}, {}]
    write_table(
        tmp_path,
        "train.csv",
        [make_row(make_path(1), columns={"No Finding": "1.0", **labels}) for labels in labels_beside],
    )
    found = read_entries(tmp_path, spark_session)
    assert [(entry.reason, entry.findings) for entry in found] == [
        (None, ["Support_Devices"]),
        (None, ["Fracture"]),
        (None, []),
    ]
    assert found[2].targets == [0.0] * 13


def test_impossible_age_is_marked(tmp_path: Path, spark_session: SparkSession) -> None:
    ages = {"0": (0.0, False), "90": (90.0, False), "150": (None, True), "": (None, False)}
    write_table(tmp_path, "train.csv", [make_row(make_path(1), columns={"Age": age}) for age in ages])
    found = read_entries(tmp_path, spark_session)
    assert [(entry.age_years, entry.impossible_age) for entry in found] == list(ages.values())
    assert [entry.reason for entry in found] == [None] * len(ages)


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path, spark_session: SparkSession) -> None:
    text = "\r\n".join(
        ["\ufeff" + HEADER, make_row(make_path(1), Support_Devices="1.0"), "", make_row(make_path(2)), ""]
    )
    (tmp_path / "train.csv").write_text(text, newline="")
    found = read_entries(tmp_path, spark_session)
    assert [(entry.line, entry.reason, entry.findings) for entry in found] == [
        (2, None, ["Support_Devices"]),
        (4, None, []),
    ]


@pytest.mark.parametrize("table", ["train.csv", "valid.csv"])
def test_one_table_alone_is_not_an_official_split(tmp_path: Path, spark_session: SparkSession, table: str) -> None:
    write_table(tmp_path, table, [make_row(make_path(1))])
    source = Chexpert.find(make_config(tmp_path))
    assert source.tables == (table,) and not source.has_official_split
    assert [entry.listed for entry in source.read_entries(spark_session).collect()] == [None]


def test_note_names_tables_and_policies(tmp_path: Path, spark_session: SparkSession) -> None:
    write_table(tmp_path, "train.csv", [])
    write_table(tmp_path, "valid.csv", [])
    source = Chexpert.find(make_config(tmp_path, uncertainty="yuan2021", uncertainty_of={"Fracture": "ignore"}))
    assert source.note == "train.csv and valid.csv; uncertain labels: yuan2021, Fracture ignore"
    assert source.has_official_split and source.vocabulary == CHEXPERT13
    assert not source.keeps_missing and Chexpert.find(make_config(tmp_path, images="optional")).keeps_missing
    assert source.read_entries(spark_session).count() == 0
    boxes = source.read_boxes(spark_session)
    assert boxes.count() == 0 and boxes.dtypes == spark_session.createDataFrame([], BOX_COLUMNS).dtypes


def test_wrong_folder_table_or_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.root is not set"):
        Chexpert.find(make_config(None))
    with pytest.raises(UserError, match=r"holds neither train\.csv nor valid\.csv"):
        Chexpert.find(make_config(tmp_path))
    write_table(tmp_path, "train.csv", [])
    with pytest.raises(UserError, match=r"uncertainty_of names 'Gout'"):
        Chexpert.find(make_config(tmp_path, uncertainty_of={"Gout": "ones"}))
    write_table(tmp_path, "valid.csv", ["<html>Sign in</html>"], header="<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"valid\.csv line 1 is '<!DOCTYPE html>', not the header of CheXpert"):
        Chexpert.find(make_config(tmp_path))
