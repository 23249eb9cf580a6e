"""Split lists under other names and in other forms, without Spark."""

from pathlib import Path

import pytest

from chestai.config import schema
from chestai.errors import UserError
from pipelines.spark.sources.nih import ENTRY_HEADER, Nih
from pipelines.spark.sources.split_lists import parse_list


def find(root: Path, **files: str) -> Nih:
    (root / "Data_Entry_2017.csv").write_text(ENTRY_HEADER)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return Nih.find(schema.Nih(format="nih", name="nih", root=str(root), images="required"))


TRAIN, TEST = "00000001_000.png\n00000003_000.png\n", "00000002_000.png\n"
LISTED = {"00000001_000": "train_val", "00000003_000": "train_val", "00000002_000": "test"}


@pytest.mark.parametrize(
    "names",
    [
        ("train_val_list_NIH.txt", "test_list_NIH.txt"),
        ("nih-train-split.csv", "NIH_Test_Split.csv"),
        ("list_trainval.lst", "list_testing.lst"),
    ],
)
def test_renamed_lists_are_found_and_said(tmp_path: Path, names: tuple[str, str]) -> None:
    source = find(tmp_path, **dict(zip((name.replace(".", "__") for name in names), (TRAIN, TEST), strict=True)))
    assert source.has_official_split and source.listed == LISTED and {*names} < {*source.tables}
    assert [guess.line for guess in source.guesses] == [
        f"official split by the words of file names: {names[0]} = train_val, {names[1]} = test (split.by=hash)"
    ]


def test_train_and_val_may_be_lists_of_their_own(tmp_path: Path) -> None:
    train, val = TRAIN.splitlines()
    source = find(tmp_path, train_list__txt=train, val_list__txt=val, test_list__txt=TEST)
    assert source.listed == LISTED


def test_published_names_are_no_guess_and_precede_others(tmp_path: Path) -> None:
    source = find(tmp_path, train_val_list__txt=TRAIN, test_list__txt=TEST, test_list_old__txt=TRAIN)
    assert source.listed == LISTED and source.guesses == ()


def test_without_lists_the_split_by_hash_is_said(tmp_path: Path) -> None:
    source = find(tmp_path, notes__txt="a list of tests", train_curve__csv="1,2")
    assert not source.has_official_split
    assert [guess.line for guess in source.guesses] == [
        "no official split, since train_val_list.txt and test_list.txt are not there: patients are split by hash "
        "(split.by)"
    ]


def test_two_test_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test_list_a\.txt and test_list_b\.txt of .* could both be the test list"):
        find(tmp_path, train_list__txt=TRAIN, test_list_a__txt=TEST, test_list_b__txt=TEST)


@pytest.mark.parametrize(
    "data",
    [
        TRAIN.encode("utf-16"),
        TRAIN.replace("\n", "\r\n").encode("utf-16-le"),
        TRAIN.encode("utf-8-sig"),
        b"Image Index\n" + TRAIN.encode(),
        b"00000001_000.png Cardiomegaly|Mass\n00000003_000.png No Finding\n",
        b"00000001_000.png 0 1 0\n00000003_000.png 0 0 0\n",
        b'"00000001_000.png",0\n"00000003_000.png",1\n',
        b",Image\n0,00000001_000.png\n1,00000003_000.png\n",
        b"images_001/images/00000001_000.png\nimages_001\\images\\00000003_000.png\n",
        b"00000001_000.jpg\n\n00000003_000\n",
    ],
)
def test_every_common_form_of_a_list_is_read(data: bytes) -> None:
    assert parse_list("train.txt", data) == ["00000001_000", "00000003_000"]


def test_another_form_is_refused_with_the_line_and_what_was_expected() -> None:
    with pytest.raises(UserError, match=r"a/l\.txt line 2 is 'patient 7': a list has one image a line, such as 0000"):
        parse_list("a/l.txt", b"00000001_000.png\npatient 7\n")
