"""The form of ChestX-ray14, without Spark: headers, ages, labels, lists, and mistakes of a user."""

from pathlib import Path

import pytest

from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.demographics import parse_age_years
from chestai.labels.findings import NIH14
from pipelines.data.files import InputFolder, hash_listing
from pipelines.spark import sources
from pipelines.spark.sources.nih import ENTRY_HEADER, SAMPLE_HEADER, Nih
from pipelines.spark.sources.tables import parse_label


def make_source(root: str | None, synthetic: bool = False) -> schema.Nih:
    return schema.Nih(format="nih", name="nih", root=root, images="required", synthetic=synthetic)


def corpus(root: Path, **files: str) -> schema.Nih:
    """A folder with these files (`_` for `.`) and the configuration of a source there."""
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text, newline="")
    return make_source(str(root))


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("058Y", 58.0),
        ("58", 58.0),
        ("013M", 13 / 12),
        ("006W", 6 / 52.18),
        ("001D", 1 / 365.25),
        ("000Y", 0.0),
        ("120Y", 120.0),
        ("121Y", None),
        ("414Y", None),
        ("-5", None),
        ("Y", None),
        ("", None),
        ("58 years", None),
    ],
)
def test_age_is_in_years_or_none_if_impossible(text: str, years: float | None) -> None:
    assert parse_age_years(text) == years


def test_label_gives_findings_and_targets_or_a_problem() -> None:
    findings, targets, problem = parse_label("Emphysema|Infiltrate", NIH14)
    assert findings == ["Infiltration", "Emphysema"] and problem is None
    assert targets is not None and sum(targets) == 2 and len(targets) == 14
    assert parse_label("No Finding", NIH14) == ([], [0.0] * 14, None)
    assert parse_label("Mass|Gout", NIH14) == (None, None, "unknown finding 'Gout'")
    assert parse_label(None, NIH14)[2] is not None


@pytest.mark.parametrize(
    ("header", "form"),
    [(ENTRY_HEADER + ",\r\n", "2017"), (ENTRY_HEADER + "\n", "2020"), (SAMPLE_HEADER + "\n", "sample")],
)
def test_all_headers_are_recognised(tmp_path: Path, header: str, form: str) -> None:
    found = Nih.find(corpus(tmp_path, Data_Entry_2017__csv=header))
    assert found.note == f"Data_Entry_2017.csv ({form} form)"
    assert found.tables == ("Data_Entry_2017.csv",) and not found.has_official_split


def test_first_version_of_the_table_is_preferred_and_the_note_says_so(tmp_path: Path) -> None:
    config = corpus(tmp_path, Data_Entry_2017_v2020__csv=ENTRY_HEADER, Data_Entry_2017__csv=ENTRY_HEADER + ",")
    found = Nih.find(config)
    assert found.tables[0] == "Data_Entry_2017.csv"
    assert found.note == "Data_Entry_2017.csv (2017 form); not read: Data_Entry_2017_v2020.csv"


def test_web_page_in_place_of_the_table_is_refused_with_file_and_line(tmp_path: Path) -> None:
    config = corpus(tmp_path, Data_Entry_2017__csv="<!DOCTYPE html>\n<html>Sign in</html>\n")
    with pytest.raises(UserError, match=r"Data_Entry_2017\.csv line 1 is '<!DOCTYPE html>'"):
        Nih.find(config)


def test_other_box_list_is_refused(tmp_path: Path) -> None:
    config = corpus(tmp_path, Data_Entry_2017__csv=ENTRY_HEADER, BBox_List_2017__csv="image,x,y\n")
    with pytest.raises(UserError, match=r"BBox_List_2017\.csv line 1"):
        Nih.find(config)


def test_one_split_list_alone_is_refused(tmp_path: Path) -> None:
    config = corpus(tmp_path, Data_Entry_2017__csv=ENTRY_HEADER, test_list__txt="00000001_000.png\n")
    with pytest.raises(UserError, match=r"test_list\.txt is alone"):
        Nih.find(config)


def test_image_in_both_lists_is_refused(tmp_path: Path) -> None:
    lists = {
        "test_list__txt": "00000002_000.png\n00000001_000.png",
        "train_val_list__txt": "00000001_000.png\n",
    }
    config = corpus(tmp_path, Data_Entry_2017__csv=ENTRY_HEADER, **lists)
    with pytest.raises(UserError, match=r"00000001_000 is in both train_val_list\.txt and test_list\.txt"):
        Nih.find(config)


def test_missing_folder_names_the_key_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"source\.root is not set"):
        sources.open_source(make_source(None))
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"source\.root=.*nowhere is not a folder$"):
        sources.open_source(make_source(nowhere))
    with pytest.raises(UserError, match=r"python -m pipelines\.phantom"):
        sources.open_source(make_source(nowhere, synthetic=True))
    with pytest.raises(UserError, match=r"holds no label table Data_Entry_2017\*\.csv or sample_labels\.csv"):
        sources.open_source(make_source(str(tmp_path)))


def test_images_are_found_at_any_depth_except_hidden_files(tmp_path: Path) -> None:
    deep = tmp_path / "images_001" / "images"
    deep.mkdir(parents=True)
    for name in ("b.png", "a.JPG", "._b.png", "notes.txt"):
        (deep / name).write_bytes(b"x")
    (tmp_path / "c.jpeg").write_bytes(b"xyz")
    listing = InputFolder.open(str(tmp_path)).list_images()
    assert listing["path"].to_pylist() == ["c.jpeg", "images_001/images/a.JPG", "images_001/images/b.png"]
    assert listing["key"].to_pylist() == ["c.jpeg", "a.JPG", "b.png"]
    assert listing["size"].to_pylist() == [3, 1, 1]


def test_listing_hash_changes_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    folder = InputFolder.open(str(tmp_path))
    before = hash_listing(folder.list_images())
    assert hash_listing(folder.list_images()) == before
    (tmp_path / "a.png").write_bytes(b"xy")
    assert hash_listing(folder.list_images()) != before
