"""A label table of any form: dialects, columns, words, joins, readers, boxes, and what is refused with which advice."""

import gzip
import io
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from chestai.errors import UserError
from tests.support.label_tables import codes, entries, find

ROWS = "file,who,Pneumothorax,Mass\na.png,p 1,1,0\nsub/b.png,p 2,,-1\n"
ACCENTED = ROWS.replace("p 2", "Müller")


def pack(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
        archive.writestr("__MACOSX/._labels.csv", b"x")
    return file.getvalue()


def write_parquet(text: str) -> bytes:
    frame = pd.read_csv(io.StringIO(text)).astype({"Pneumothorax": "float64", "Mass": "int64"})
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("labels.csv", ACCENTED.encode("utf-8-sig")),
        ("labels.csv", ACCENTED.replace("\n", "\r\n").encode("utf-16")),
        ("labels.csv", ACCENTED.replace(",", ";").encode("cp1252")),
        ("labels.tsv", ACCENTED.replace(",", "\t").encode()),
        ("labels.txt", ACCENTED.replace(",", " | ").encode()),
        ("labels.csv", ACCENTED.replace("p 1", '"p\n 1"').encode()),
        ("labels.csv.gz", gzip.compress(ACCENTED.encode())),
        ("labels.zip", pack("labels.csv", ACCENTED.encode())),
        ("labels.parquet", write_parquet(ACCENTED)),
        (
            "labels.jsonl",
            '{"file": "a.png", "who": "p 1", "Pneumothorax": 1.0, "Mass": 0}\n'
            '{"file": "sub/b.png", "who": "Müller", "Pneumothorax": null, "Mass": -1}\n'.encode(),
        ),
    ],
)
def test_every_dialect_gives_the_same_labels(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    source = find(tmp_path, f"source.tables={name}")
    assert codes(source) == {
        "a.png": {"Mass": "0", "Pneumothorax": "1"},
        "sub/b.png": {"Mass": "u", "Pneumothorax": "?"},
    }
    patients = {key: row["patient_id"] for key, row in entries(source).items()}
    assert patients["sub/b.png"] == "table:Müller" and patients["a.png"].startswith("table:p")


def test_header_or_rows_may_end_with_commas(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,who,Mass,,\na.png,1,1\nsub/b.png,2,0\n")
    assert codes(find(tmp_path)) == {"a.png": {"Mass": "1"}, "sub/b.png": {"Mass": "0"}}
    (tmp_path / "labels.csv").write_text("file,who,Mass\na.png,1,1,,\nsub/b.png,2,0\n")
    assert codes(find(tmp_path)) == {"a.png": {"Mass": "1"}, "sub/b.png": {"Mass": "0"}}


def test_table_is_found_packed_or_unpacked(tmp_path: Path) -> None:
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(ROWS.encode()))
    assert len(entries(find(tmp_path))) == 2
    (tmp_path / "labels.csv.gz").unlink()
    (tmp_path / "labels.csv").write_text(ROWS)
    assert len(entries(find(tmp_path, "source.tables=labels.csv.gz"))) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["source.columns.patient=Who is"],
            r"source\.columns\.patient: labels\.csv has no column Who is \(nearest: who\), only file, who",
        ),
        (["source.columns.image=files"], r"has no column files \(nearest: file\), only file, who, Pneumothorax, Mass"),
        (
            ["source.columns.view=who"],
            r"source\.columns\.view=who holds 'p 1', 'p 2', which is no view: map .*words\.view",
        ),
        (["source.columns.age=file"], r"source\.columns\.age=file holds 'a\.png', 'sub/b\.png', which is no age"),
        (["source.columns.image='{file'"], r"\{file is not a pattern such as"),
        (["source.columns.patient='{where}/{who}'"], r"has no column where, only file"),
        (["source.columns.patient='who ~ ('"], r"\( is not a regular expression"),
        (["source.columns.patient='who ~ p'"], r"p has no group"),
        (["source.columns.image=null"], r"source\.columns\.image is not set: .* labels\.csv has file, who"),
        (["source.labels.columns=[who]"], r"source\.labels\.columns: who holds 'p 1', 'p 2', which is no label"),
        (["source.labels.columns=[Mass, mass]"], r"has no column mass|both mean Mass"),
        (["source.tables=label.csv"], r"there is no file .*label\.csv; nearest: labels\.csv"),
        (["source.files=png/*"], r"source\.files=png/\* matches none of 2 files, such as a\.png"),
        (
            ["source.uncertainty_of={Edema: ones}"],
            r"uncertainty_of names Edema, but the findings are Mass, Pneumothorax",
        ),
        (["source.join=[{table: labels.csv, by: [whom]}]"], r"source\.join\[0\]\.by: labels\.csv has no column whom"),
    ],
)
def test_wrong_setting_is_refused_with_what_there_is(overrides: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(ROWS)
    with pytest.raises(UserError, match=message):
        find(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!DOCTYPE html>\n<html>\n", r"labels\.csv line 1 is '<!DOCTYPE html>', not the header of a table"),
        ("", r"not the header of a table"),
        ("file,who,grade\na.png,1,2\n", r"no column named like a finding: set source\.labels\.columns"),
        ("file,who,Mass\nx.png,1,1\n", r"labels\.csv names none of the 2 image files: nearest to a\.png is x\.png"),
    ],
)
def test_table_that_cannot_be_meant_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        find(tmp_path)


def test_bad_rows_are_rejected_with_their_line(tmp_path: Path) -> None:
    good = "".join(f"g{number}.png,p,M,PA,0\n" for number in range(30))
    bad = (
        "x1.png,p,M,PA\n,p,M,PA,1\nx2.png,p,Q,PA,1\nx3.png,p,M,wrong,1\nx4.png,p,M,PA,maybe so\nx5.png,p,M,SWIMMERS,1\n"
    )
    (tmp_path / "labels.csv").write_text(f"file,who,sex,view,Mass\n{good}{bad}x6.png,p,M,PA,1\n")
    source = find(
        tmp_path,
        *("source.columns.sex=sex", "source.columns.view=view", "source.exclude={file: [x6.png]}"),
        images=("g1.png",),
    )
    rejected = [(row["line"], row["reason"], row["detail"]) for row in source.entries.to_pylist() if row["reason"]]
    assert rejected == [
        (32, "entry_unparsable", "labels.csv line 32: 4 cells under 5 columns"),
        (33, "entry_unparsable", "labels.csv line 33: the column of the image is blank"),
        (34, "entry_unparsable", "labels.csv line 34: the column sex holds no sex"),
        (35, "entry_unparsable", "labels.csv line 35: the column view holds no view"),
        (36, "entry_unparsable", "labels.csv line 36: the column Mass is not 1, 0, -1 or blank"),
        (37, "not_frontal", "labels.csv line 37: its view is not frontal"),
        (38, "excluded", "labels.csv line 38: source.exclude: file is x6.png"),
    ]


def test_words_say_what_cells_mean(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file;who;g;v;part;Erguss\na.png;1;0;stehend;1;ja\nsub/b.png;2;1;liegend;2;fraglich\nc.png;3;1;seitlich;2;nein\n"
    )
    source = find(
        tmp_path,
        *("source.columns.sex=g", "source.columns.view=v", "source.columns.split=part"),
        "source.words.sex={0: M, 1: F}",
        "source.words.view={stehend: PA, liegend: AP, seitlich: lateral}",
        "source.words.split={1: train, 2: test}",
        "source.words.label={ja: 1, nein: 0, fraglich: -1}",
        "source.labels.columns={Erguss: Pleural Effusion}",
    )
    rows = entries(source)
    assert source.vocabulary == ("Effusion",) and source.has_official_split
    assert [(row["sex"], row["view"], row["listed"], row["codes"]) for row in rows.values()] == [
        ("M", "PA", "train_val", "1"),
        ("F", "AP", "test", "u"),
        ("F", "lateral", "test", "0"),
    ]


def test_unmapped_names_are_counted_and_blank_means_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,who,is\na.png,1,Pneu|scoliosis\nsub/b.png,2,\nc.png,3,none found\n")
    names = "source.labels.names={pneu: Pneumothorax, none found: null}"
    column = ["source.labels.column=is", "source.labels.separator='|'"]
    source = find(tmp_path, *column, names)
    assert codes(source) == {
        "a.png": {"Pneumothorax": "1"},
        "sub/b.png": {"Pneumothorax": "?"},
        "c.png": {"Pneumothorax": "0"},
    }
    assert [guess.text for guess in source.guesses] == ["labels that are no finding: scoliosis (1)"]
    assert codes(find(tmp_path, *column, names, "source.labels.blank=negative"))["sub/b.png"] == {"Pneumothorax": "0"}


def test_joined_tables_add_columns_and_lonely_rows_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,study\na.png,1\nsub/b.png,2\nc.png,3\n")
    (tmp_path / "findings.csv").write_text("StudyID,Mass,who\n1,1,x\n2,0,y\n")
    (tmp_path / "people.csv").write_text("who,sex\nx,F\n")
    joins = "{table: findings.csv, by: {study: StudyID}}, {table: people.csv, by: [who], required: false}"
    source = find(tmp_path, f"source.join=[{joins}]", "source.columns.sex=sex")
    rows = source.entries.to_pylist()
    assert [(row["key"], row["codes"], row["sex"], row["reason"]) for row in rows[:2]] == [
        ("a.png", "1", "F", None),
        ("sub/b.png", "0", None, None),
    ]
    assert rows[2]["detail"] == "labels.csv line 4: no row of findings.csv has its study"
    (tmp_path / "findings.csv").write_text("StudyID,Mass,who\n1,1,x\n1,0,y\n")
    with pytest.raises(UserError, match=r"several different rows of one study, 1 in all"):
        find(tmp_path, f"source.join=[{joins}]")
