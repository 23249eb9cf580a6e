"""A hospital's DICOM files with a label table: header fields, rejected files, and patients whose names stay out."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from chestai.config import load as conf
from chestai.config import schema
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, LABELS, QUARANTINE
from pipelines.spark.sources.dicom import Dicom
from pipelines.spark.splits import assign_split
from tests.support.corpus import reconcile_corpus, run_etl
from tests.support.dicom import film, instance

SECRETS = ("Doe", "Secret", "19501224", "1950-12-24")


def dicom_config(root: Path, lake: Path) -> schema.Config:
    return conf.load(["source=dicom", "cluster=laptop", f"source.root={root}", f"lake={lake}"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dicom") / "corpus"
    (root / "series").mkdir(parents=True)
    files = {
        "series/a.dcm": film(1, **instance(1, "77")),
        "series/1.2.2": film(2, **instance(2, "77", PatientAge="031Y", ViewPosition="AP")),
        "b.dcm": film(3, **instance(3, "78", PatientSex="O", ViewPosition="")),
        "side.dcm": film(4, **instance(4, "78", ViewPosition="LL")),
        "hand.dcm": film(5, **instance(5, "79", BodyPartExamined="HAND")),
        "cut.dcm": film(6, **instance(6, "79"))[:700],
        "nobody.dcm": film(7, **instance(7, "")),
        "unlabelled.dcm": film(8, **instance(8, "80")),
        "DICOMDIR": b"an index",
        "notes.txt": b"PatientName: Doe",
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def test_table_by_uid_with_one_column_per_finding(corpus: Path, spark_session: SparkSession, tmp_path: Path) -> None:
    (corpus / "labels.csv").write_text(
        "SOPInstanceUID,Pleural Effusion,Mass\n"
        "1.2.1,1,0\n1.2.2,0,\n1.2.3,-1,1.0\n1.2.4,0,0\n1.2.5,0,0\n1.2.7,0,0\n1.2.99,1,1\n1.2.98,Doe,1\n"
    )
    config = dicom_config(corpus, tmp_path / "lake")
    result = reconcile_corpus(spark_session, config)
    images = result.gold()
    assert set(images) == {"1.2.1", "1.2.2", "1.2.3"}
    first = images["1.2.1"]
    assert (first["patient_id"], first["study_id"], first["source"]) == ("dicom:77", "1.9.1", "dicom")
    assert (first["sex"], first["view"], first["age_years"]) == ("F", "PA", 70.0)
    assert (first["height"], first["width"], first["channels"]) == (64, 72, 1)
    assert (images["1.2.2"]["age_years"], images["1.2.2"]["view"]) == (31.0, "AP")
    assert (images["1.2.3"]["sex"], images["1.2.3"]["view"]) == (None, None)
    assert first["split"] == assign_split("dicom:77", None, config.split)
    assert result.vocabulary == ("Effusion", "Mass")
    assert {image_id: (row["targets"], row["uncertain"]) for image_id, row in images.items()} == {
        "1.2.1": ([1.0, 0.0], []),
        "1.2.2": ([0.0, None], []),
        "1.2.3": ([None, 1.0], ["Effusion"]),
    }
    rejected = {(row["item"].rsplit("/", 1)[-1], row["reason"]) for row in result.quarantine()}
    assert rejected == {
        ("side.dcm", "not_frontal"),
        ("hand.dcm", "not_a_chest"),
        ("cut.dcm", "truncated"),
        ("nobody.dcm", "no_patient"),
        ("unlabelled.dcm", "image_without_entry"),
        ("labels.csv line 9", "entry_unparsable"),
    }
    assert result.accounting["entries_without_file"] == 3, "side and hand were rejected before their key was known"
    assert result.notes == ["labels.csv by SOPInstanceUID, 2 findings"]


def test_no_name_or_birth_date_is_in_the_lake(corpus: Path, spark_session: SparkSession, tmp_path: Path) -> None:
    (corpus / "labels.csv").write_text("file,findings\na.dcm,Mass\n1.2.2,No Finding\nb,Gout Doe\nhand.dcm,Mass\n")
    config = dicom_config(corpus, tmp_path / "lake")
    run_etl(config)
    lake = Lake(config.lake)
    assert set(lake.read_gold(lake.find_snapshot(), IMAGES)["image_id"].to_pylist()) == {"1.2.1", "1.2.2"}
    assert lake.read_gold(lake.find_snapshot(), LABELS)["uncertain"].to_pylist() == [[], []]
    reasons = {
        row["item"].rsplit("/", 1)[-1]: row["reason"]
        for row in lake.read_gold(lake.find_snapshot(), QUARANTINE).to_pylist()
    }
    assert reasons["hand.dcm"] == "not_a_chest" and reasons["labels.csv line 4"] == "unknown_finding"
    texts = [str(lake.read(table).to_pylist()) for table in (IMAGES, LABELS, QUARANTINE, "etl/inspected", "gold/stats")]
    files = [path.read_bytes().decode(errors="replace") for path in Path(lake.root).rglob("*.*") if path.is_file()]
    for secret in SECRETS:
        assert not any(secret in text for text in (*texts, *files))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("patient,Mass\n1,1\n", r"labels\.csv line 1 is 'patient,Mass', not the header of a label table"),
        ("<!DOCTYPE html>\n<html>\n", r"labels\.csv line 1 is '<!DOCTYPE html>'"),
        ("file,findings,Mass\n", r"not the header of a label table"),
        ("file\n", r"not the header of a label table"),
        ("file,findings\na,Gout\n", r"names no known finding"),
    ],
)
def test_malformed_table_is_refused_with_its_line(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        Dicom.find(schema.Dicom(format="dicom", name="dicom", root=str(tmp_path), labels="labels.csv"))


def test_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.labels=found\.csv: there is no label table .*found\.csv"):
        Dicom.find(schema.Dicom(format="dicom", name="dicom", root=str(tmp_path), labels="found.csv"))


def test_spreadsheet_of_anonymised_files_is_matched(tmp_path: Path, spark_session: SparkSession) -> None:
    """Lost zeros, a patient's column, words for labels, a column too many; files without patient, modality and UIDs."""
    blank = {"PatientID": "", "Modality": "", "BodyPartExamined": "", "SOPInstanceUID": "", "StudyInstanceUID": ""}
    for number in range(1, 5):
        (tmp_path / f"0000000{number}.dcm").write_bytes(film(number, **blank).replace(b"1.2.3.4", b"1.2.3.%d" % number))
    (tmp_path / "labels.csv").write_text(
        "file;PatientID;Mass;Effusion;Notes\n1;p1;TRUE;nan;a\n2;p1;n;Y;b\n3;nan;1.0;0;c\n4;p2;maybe;0;d\n", "cp1252"
    )
    result = reconcile_corpus(spark_session, dicom_config(tmp_path, tmp_path / "lake"))
    gold = {row["path"].rpartition("/")[2]: row for row in result.gold().values()}
    assert {name: (row["patient_id"], row["targets"]) for name, row in gold.items()} == {
        "00000001.dcm": ("dicom:p1", [None, 1.0]),
        "00000002.dcm": ("dicom:p1", [1.0, 0.0]),
    }
    assert result.vocabulary == ("Effusion", "Mass") and result.accounting["unknown_views"] == 0
    reasons = {(row["item"].rpartition("/")[2], row["reason"]) for row in result.quarantine()}
    assert reasons == {
        ("00000003.dcm", "no_patient"),
        ("00000004.dcm", "image_without_entry"),
        ("labels.csv line 5", "entry_unparsable"),
    }
    assert [line.partition(":")[2].split(",")[0].strip() for line in result.guesses] == [
        "patients from the column PatientID (source.labels)",
        "columns that are no finding: Notes (source.labels)",
        "4 files matched with labels.csv although the zeros before a number differs",
    ]


def test_files_of_one_name_in_several_folders_are_told_apart_by_their_path(
    tmp_path: Path, spark_session: SparkSession
) -> None:
    for number, folder in enumerate(("p1", "p2"), 1):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "img.dcm").write_bytes(film(number, **instance(number, folder)))
    (tmp_path / "labels.csv").write_text("file,Mass\np1/img.dcm,1\np2\\img.dcm,0\n")
    result = reconcile_corpus(spark_session, dicom_config(tmp_path, tmp_path / "lake"))
    assert {image_id: row["targets"] for image_id, row in result.gold().items()} == {"1.2.1": [1.0], "1.2.2": [0.0]}


def test_table_of_other_files_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "a_17.dcm").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("file,Mass\nb_3.dcm,1\na_18.dcm,0\n")
    with pytest.raises(
        UserError, match=r"labels\.csv names none of the 1 image files: nearest to a_17\.dcm is a_18\.dcm"
    ):
        Dicom.find(schema.Dicom(format="dicom", name="dicom", root=str(tmp_path), labels="labels.csv"))
