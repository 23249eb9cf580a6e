"""Class, split and masks from the folders of public sets and their neighbours, without Spark."""

from pathlib import Path

import pytest

from chestai.config import schema
from chestai.errors import UserError
from pipelines.spark.sources.folder_layout import FolderLayout, find_split
from pipelines.spark.sources.folders import Folders
from pipelines.spark.sources.guesses import check_guesses


def make_paths(*folders: str, stems: tuple[str, ...] = ("a", "b")) -> list[str]:
    """Files in each of these folders; the stems differ from class to class unless a folder has several kinds."""
    return [
        f"{folder}/{folder.split('/')[1 if '/' in folder else 0]}-{stem}.png" for folder in folders for stem in stems
    ]


def locate(paths: list[str]) -> dict[str, set[tuple[str | None, str | None]]]:
    """Return for each folder with files that are read the class and the split."""
    layout = FolderLayout(paths)
    companions, found = layout.find_companions(), dict[str, set[tuple[str | None, str | None]]]()
    for location in (layout.locate(path) for path in paths if path not in companions):
        found.setdefault(location.path.rpartition("/")[0], set()).add((location.folder, location.listed))
    return found


def find(root: Path, paths: list[str], classes: dict[str, str | None] | None = None) -> Folders:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    config = schema.Folders(
        format="folders", name="set", root=str(root), labels="multiclass", classes=classes, patient_pattern=None
    )
    return Folders.find(config)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        *[(name, "train_val") for name in ("train", "Training", "TRAIN", "training_set", "Train-Images", "trainval")],
        *[(name, "train_val") for name in ("val", "Valid", "validation_data", "train_val", "CXR train 1")],
        *[(name, "test") for name in ("test", "Testing", "Test Set", "testing_images", "Test-2")],
        *[(name, None) for name in ("Normal", "contest", "latest", "tested positive", "train_test", "images", "1")],
    ],
)
def test_split_words(folder: str, split: str | None) -> None:
    assert find_split(folder) == split


def test_masks_of_the_public_covid_set_are_not_images_of_a_class(tmp_path: Path) -> None:
    kinds = ("images", "lung masks", "infection masks")
    paths = make_paths(
        *(f"{split}/{name}/{kind}" for split in ("Train", "Test") for name in ("COVID-19", "Normal") for kind in kinds)
    )
    assert locate(paths) == {
        f"{split}/{name}/images": {(name, listed)}
        for split, listed in (("Train", "train_val"), ("Test", "test"))
        for name in ("COVID-19", "Normal")
    }
    source = find(tmp_path, paths)
    assert (source.list_images().num_rows, source.vocabulary) == (8, ("COVID-19",))
    assert source.guesses[-1].line == (
        "no images of a class but masks or the like: 16 files in infection masks, lung masks (source.classes)"
    )
    check_guesses(source.guesses, 24)


@pytest.mark.parametrize("beside", ["lung_mask", "leftMask", "Masks/deep", "overlays", "heatmaps"])
def test_what_lies_beside_the_images_of_a_class_under_their_names_accompanies_them(beside: str) -> None:
    paths = ["Gout/images/a.png", f"Gout/{beside}/a.jpg", "Ache/images/b.png", f"Ache/{beside}/b.jpg"]
    if beside.endswith("deep"):
        paths += ["Gout/images/c.png", f"Gout/{beside}/c_mask.png"]
    assert {*locate(paths)} == {"Gout/images", "Ache/images"}


def test_masks_beside_their_images_are_known_by_their_names() -> None:
    layout = FolderLayout(["Gout/a.png", "Gout/a_mask.png", "Ache/b.png", "Ache/unmatched_mask.png"])
    assert layout.find_companions() == {"Gout/a_mask.png": True}


def test_masks_without_images_are_too_much_to_guess_and_the_key_settles_it(tmp_path: Path) -> None:
    paths = [*make_paths("Gout/images", "Normal/images"), "masks/x.png"]
    source = find(tmp_path, paths)
    with pytest.raises(UserError, match=r"1 of 5 files would be left out, .* settle it with source\.classes"):
        check_guesses(source.guesses, 5)
    source = find(tmp_path, paths, {"Gout": "Gout", "Normal": None, "masks": "Mass"})
    assert (source.list_images().num_rows, source.guesses) == (5, ())


@pytest.mark.parametrize("outer", ["", "chest_xray/", "COVID-19/"])
def test_unpacked_archives_are_no_classes(outer: str) -> None:
    folders = [
        f"{outer}{inner}{split}/{name}"
        for inner in ("", "chest_xray/")
        for split in ("train", "test")
        for name in ("NORMAL", "PNEUMONIA")
    ]
    found = locate(make_paths(*folders))
    assert found == {
        folder: {(folder.rpartition("/")[2], "test" if "/test/" in f"/{folder}" else "train_val")} for folder in folders
    }


@pytest.mark.parametrize(
    "wrapped",
    [
        ("{}/Normal", "{}/Gout"),
        ("Normal", "Gout", "{}/Normal", "{}/Gout"),
        ("Ache", "Gout", "{}/Ache", "{}/Gout"),
        ("{}/Ache", "{}/Gout"),
        ("{}/Edema", "other/Normal", "other/Gout"),
    ],
)
def test_classes_lie_below_folders_that_hold_classes(wrapped: tuple[str, ...]) -> None:
    folders = [folder.format("batch 1") for folder in wrapped]
    assert locate(make_paths(*folders)) == {folder: {(folder.rpartition("/")[2], None)} for folder in folders}


def test_classes_may_hold_splits_and_parts() -> None:
    folders = [
        "Gout/train",
        "Gout/test",
        "Normal/train",
        "Normal/test",
        "Pneumonia/bacterial/test",
        "Pneumonia/viral/train",
    ]
    assert {folder: {name for name, _ in found} for folder, found in locate(make_paths(*folders)).items()} == {
        folder: {folder.split("/")[0]} for folder in folders
    }


def test_folders_that_the_user_names_are_classes_whatever_they_look_like(tmp_path: Path) -> None:
    paths = make_paths("set/Testing", "set/masks", "set/Normal")
    source = find(tmp_path, paths, {"Testing": "Mass", "Normal": None, "masks": "Nodule"})
    assert source.vocabulary == ("Mass", "Nodule") and not source.has_official_split and source.guesses == ()


def test_all_that_is_guessed_is_said_with_counts(tmp_path: Path) -> None:
    source = find(
        tmp_path,
        make_paths(
            "data_1/tb set/Training/Normal",
            "data_1/tb set/Training/TB",
            "data_1/tb set/Testing/Normal",
            "data_1/tb set/Testing/TB",
        ),
    )
    assert source.has_official_split and source.vocabulary == ("Tuberculosis",)
    assert [guess.line for guess in source.guesses] == [
        "classes by folder: Normal = no finding (4), TB = Tuberculosis (4) (source.classes)",
        "no classes, because they hold class folders: data_1/tb set (8) (source.classes)",
        "splits by folder: test 4, train_val 4 (split.by=hash)",
    ]
