"""The published label tables of three corpora, without images: counts equal those of the csv module."""

import csv
import gzip
import io
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from chestai.config import load as conf
from tests.support.corpus import ReconciledCorpus, reconcile_corpus
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

VINDR, RSNA = "vinbigdata-train.csv.gz", "kaggle_stage_2_train_labels.csv.zip"
HEADERS, NIH = "kaggle_stage_2_train_images_dicom_headers.csv.gz", "google2019_nih-chest-xray-labels.csv.gz"


@pytest.fixture(scope="module")
def root() -> Path:
    root = ROOT.parent / "shared" / "label-tables"
    if not (root / VINDR).exists():
        pytest.skip(f"no label tables at {root}")
    return root


@pytest.fixture(scope="module")
def build(root: Path, spark_session: SparkSession) -> ReconciledCorpus:
    """One build of the three tables; RSNA's with the headers of its DICOM files."""
    join = f"{{table: {HEADERS}, by: {{patientId: PatientID}}}}"
    words = ["cluster=laptop", "source=vinbigdata", f"source.tables={VINDR}"]
    words += ["+source@also.rsna=rsna", f"also.rsna.tables={RSNA}", f"also.rsna.join=[{join}]"]
    people = {"age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}
    words += [f"also.rsna.columns.{what}={column}" for what, column in people.items()]
    words += ["+source@also.nih=nih-experts"]
    for key in ("source", "also.rsna", "also.nih"):
        words += [f"{key}.root={root}", f"{key}.images=optional"]
    return reconcile_corpus(spark_session, conf.load(words))


def read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = gzip.decompress(path.read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text)))


def count_findings(build: ReconciledCorpus, source: str, column: str) -> Counter[str]:
    rows = build.rows.gold.where(F.col("source") == source).select(F.explode(column).alias("finding"))
    return Counter({row["finding"]: row["count"] for row in rows.groupBy("finding").count().collect()})


def count_images(build: ReconciledCorpus, source: str) -> int:
    return build.rows.gold.where(F.col("source") == source).count()


def test_vindr_has_the_findings_of_two_readers(root: Path, build: ReconciledCorpus) -> None:
    readers: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    rows = read(root / VINDR)
    for row in rows:
        readers[row["image_id"], row["class_name"]].add(row["rad_id"])
    named = [(name, len(of_image)) for (_, name), of_image in readers.items() if name != "No finding"]
    spelling = {"Pleural effusion": "Effusion", "Pulmonary fibrosis": "Fibrosis", "Nodule/Mass": "Nodule_Mass"}
    names = {name: spelling.get(name, name.replace(" ", "_")) for name, _ in named}
    names |= {"Lung Opacity": "Lung_Opacity", "Pleural thickening": "Pleural_Thickening"}
    assert count_images(build, "vinbigdata") == len({row["image_id"] for row in rows}) == 15_000
    agreed = Counter(names[name] for name, readers_of in named if readers_of >= 2)
    assert count_findings(build, "vinbigdata", "findings") == agreed
    assert count_findings(build, "vinbigdata", "uncertain") == Counter(names[name] for name, of in named if of == 1)
    boxes = sum(len(readers[row["image_id"], row["class_name"]]) >= 2 for row in rows if row["x_min"])
    assert build.rows.boxes.where(F.col("source") == "vinbigdata").count() == boxes


def test_rsna_has_one_row_an_image(root: Path, build: ReconciledCorpus) -> None:
    rows, people = read(root / RSNA), {row["PatientID"]: row for row in read(root / HEADERS)}
    positive = {row["patientId"] for row in rows if row["Target"] == "1"}
    assert count_images(build, "rsna") == len({row["patientId"] for row in rows}) == 26_684
    assert count_findings(build, "rsna", "findings") == {"Lung_Opacity": len(positive)}
    assert build.rows.boxes.where(F.col("source") == "rsna").count() == sum(bool(row["x"]) for row in rows)
    gold = build.rows.gold.where(F.col("source") == "rsna")
    assert gold.where("sex = 'F'").count() == sum(row["PatientSex"] == "F" for row in people.values())
    assert gold.where("view = 'PA'").count() == sum(row["ViewPosition"] == "PA" for row in people.values())
    impossible = build.rows.matched.where("source = 'rsna' and impossible_age").count()
    assert impossible == sum(float(row["PatientAge"]) > 120 for row in people.values())


def test_radiologists_labels_of_nih_keep_its_ids(root: Path, build: ReconciledCorpus) -> None:
    rows = read(root / NIH)
    assert count_images(build, "nih-experts") == len({row["Image Index"] for row in rows}) == 4_376
    names = {"Fracture": "Fracture", "Pneumothorax": "Pneumothorax"}
    names |= {"Airspace opacity": "Lung_Opacity", "Nodule or mass": "Nodule_or_Mass"}
    expected = {finding: sum(row[name] == "YES" for row in rows) for name, finding in names.items()}
    assert count_findings(build, "nih-experts", "findings") == expected
    gold = build.rows.gold.where(F.col("source") == "nih-experts")
    assert gold.where("split = 'test'").count() == sum(row["Set Id"] == "test" for row in rows)
    one = gold.where("image_id = '00000013_008'").collect()[0]
    assert (one["patient_id"], one["study_id"]) == ("00000013", "00000013_008")
