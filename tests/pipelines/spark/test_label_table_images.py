"""Several rows of an image, its boxes and its patient in a label table; DICOM files by name or by header."""

from pathlib import Path

import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from pipelines.spark.sources.label_table.source import LabelTable
from tests.support.corpus import encode_png, make_noise
from tests.support.dicom import film, instance
from tests.support.label_tables import codes, entries, find


def test_readers_agree_or_leave_doubt(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,who,reader,says,x,y,w,h\n"
        "a.png,1,A,Mass,1,2,3,4\na.png,1,B,Mass,1,2,3,5\na.png,1,B,Mass,9,9,3,5\na.png,1,C,Edema,0,0,1,1\n"
        "sub/b.png,2,A,Mass,5,5,5,5\nsub/b.png,2,A,Mass,6,6,5,5\nsub/b.png,2,B,No Finding,,,,\n"
        "c.png,3,,Edema,1,1,0,1\n"
    )
    boxes = "source.boxes.xywh=[x, y, w, h]"
    source = find(tmp_path, "source.labels.column=says", "source.labels.raters=reader", "source.labels.agree=2", boxes)
    assert codes(source) == {
        "a.png": {"Mass": "1", "Edema": "u"},
        "sub/b.png": {"Mass": "u", "Edema": "0"},
        "c.png": {"Mass": "0", "Edema": "1"},
    }
    drawn = [(row["image_id"], row["finding"], row["y"], row["reason"]) for row in source.boxes.to_pylist()]
    assert drawn == [
        ("table:a", "Mass", 2.0, None),
        ("table:a", "Mass", 2.0, None),
        ("table:a", "Mass", 9.0, None),
        ("table:c", "Edema", 1.0, "box_unparsable"),
    ]
    assert any(guess.text.endswith("too few readers name: 3") for guess in source.guesses)


def test_blank_patient_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,who,Mass\na.png,,1\nsub/b.png,2,0\n")
    patients = {key: row["patient_id"] for key, row in entries(find(tmp_path)).items()}
    assert patients == {"a.png": None, "sub/b.png": "table:2"}, "the ETL rejects an image without a patient"
    own = entries(find(tmp_path, "source.columns.patient=null"))
    assert [row["patient_id"] for row in own.values()] == ["table:a", "table:sub:b"]


def test_many_rows_an_image_are_not_taken_for_duplicates(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,who,says\na.png,1,Mass\na.png,1,Edema\nsub/b.png,3,Mass\n")
    message = r"1 of 3 rows of labels\.csv name an image that an earlier row names: .* source\.labels\.rows=several"
    with pytest.raises(UserError, match=message):
        find(tmp_path, "source.labels.column=says")
    assert codes(find(tmp_path, "source.labels.column=says", "source.labels.rows=several"))["a.png"] == {
        "Mass": "1",
        "Edema": "1",
    }


def test_rows_of_one_image_with_two_patients_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,who,says\na.png,1,Mass\na.png,2,Edema\nsub/b.png,3,Mass\n")
    source = find(tmp_path, "source.labels.column=says", "source.labels.rows=several")
    reasons = {row["key"]: row["reason"] for row in source.entries.to_pylist()}
    assert reasons == {"a.png": "entry_unparsable", "sub/b.png": None}


@pytest.mark.parametrize(
    ("runs", "box"),
    [
        ("20 5 3 4", (2.0, 0.0, 2.0, 10.0)),  # rows 0 to 4 and 8, 9 of column 2, rows 0 and 1 of column 3
        ("21 2 8 2", (2.0, 1.0, 2.0, 2.0)),  # rows 1, 2 of columns 2 and 3
        ("1 2 3", None),
        ("99 5", None),
        ("a b", None),
        ("3 0", None),
    ],
)
def test_box_surrounds_its_mask(runs: str, box: tuple[float, ...] | None, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"file,who,mask\na.png,1,{runs}\nsub/b.png,2,-1\n")
    columns = ["source.columns.image=file", "source.labels.column=mask", "source.boxes.rle=mask"]
    settings = ["source=siim", f"source.root={tmp_path}", "source.tables=labels.csv", "source.boxes.pixels=10"]
    (tmp_path / "a.png").write_bytes(encode_png(make_noise(1)))
    source = LabelTable.find(conf.load([*settings, *columns]).source)  # type: ignore[arg-type]
    (drawn,) = source.boxes.to_pylist()
    found = None if drawn["reason"] else tuple(drawn[side] for side in "xywh")
    assert found == box and drawn["drawn_on"] == 10


def test_dicom_files_are_known_by_name_or_by_header(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,Mass\n1.2.5,1\n1.2.6,0\n")
    for number, name in ((5, "x.dcm"), (6, "y")):
        (tmp_path / name).write_bytes(film(number, **instance(number, "77")))
    settings = ["source=table", f"source.root={tmp_path}", "source.columns.image=file"]
    source = LabelTable.find(conf.load(settings).source)  # type: ignore[arg-type]
    assert source.images["key"].to_pylist() == [None, None]
    assert [row["patient_id"] for row in source.entries.to_pylist()] == [None, None], "it is in the header"
    assert "SOP Instance UID" in source.guesses[-1].text
    (tmp_path / "x.dcm").rename(tmp_path / "1.2.5")
    (tmp_path / "y").rename(tmp_path / "1.2.6")
    (tmp_path / "README").write_text("no image")
    assert LabelTable.find(conf.load(settings).source).images["key"].to_pylist() == ["1.2.5", "1.2.6"]  # type: ignore[arg-type]
