"""The columns of hospitals' label tables, without Spark."""

import pytest

from chestai.errors import UserError
from pipelines.spark.sources.label_columns import FILE, FINDINGS, PATIENT, UID, read_columns


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("SOPInstanceUID,Mass\n1.2,1\n", (UID, "Mass")),
        ("sop_instance_uid;Mass;Pleural Effusion\n1.2;1;0\n", (UID, "Mass", "Effusion")),
        ("File Name\tMass\n1.dcm\t1\n", (FILE, "Mass")),
        ("file,PatientID,Mass\n1.dcm,77,1\n", (FILE, PATIENT, "Mass")),
        ("image_id,Gout\n1,TRUE\n2,nan\n3,n\n", (FILE, "Gout")),
        (
            "file,Mass,age,Unnamed: 0,Notes,Reader\n1,1,50,0,fine,A\n2,0,51,1,,B\n",
            (FILE, "Mass", None, None, None, None),
        ),
        ("file,SOPInstanceUID,Mass\n1,1.2,1\n", (None, UID, "Mass")),
        ("file,Finding Labels,Sex\n1,Mass|Nodule,F\n", (FILE, FINDINGS, None)),
        (",file,Mass\n0,a,1\n", (None, FILE, "Mass")),
        ("file,Mass\n1,perhaps\n2,1\n", (FILE, "Mass")),
    ],
)
def test_columns_are_recognised_by_name_and_cells(text: str, roles: tuple[str | None, ...]) -> None:
    assert read_columns(text, "labels.csv").roles == roles


def test_what_is_taken_for_a_patient_or_nothing_is_said() -> None:
    columns = read_columns("file,PatientID,Mass,Notes,Age\n1,77,1,fine,50\n", "labels.csv")
    assert columns.vocabulary == ("Mass",)
    assert [guess.line for guess in columns.guesses] == [
        "patients from the column PatientID (source.labels)",
        "columns that are no finding: Notes, Age (source.labels)",
    ]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "file,age\n1,50\n", "file,Mass,mass\n1,1,1\n", "file,findings,Mass\n1,Mass,1\n"]
)
def test_table_without_key_or_finding_is_refused_with_its_first_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^t\.csv line 1 is '.*', not the header of a label table"):
        read_columns(text, "t.csv")
