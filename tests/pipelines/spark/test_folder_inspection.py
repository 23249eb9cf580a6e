"""`python -m pipelines.etl inspect`: names the source of every known layout, and says none for others."""

import io
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.errors import UserError
from pipelines.spark.sources.chexpert import HEADER
from pipelines.spark.sources.folder_inspection import inspect
from pipelines.spark.sources.label_table.source import LabelTable
from tests.support.corpus import encode_png, make_noise, write_corpus
from tests.support.dicom import film, instance
from tests.support.presets import COPIES


def png(seed: int = 1) -> bytes:
    return encode_png(make_noise(seed))


def write(root: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def look(root: Path, name: str | None = None) -> str:
    screen = Screen(Console(file=io.StringIO(), width=200))
    inspect.inspect_folder(conf.load([]), screen, str(root), name)
    return screen.console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COPIES)
def test_names_the_source_of_a_public_corpus(name: str, tmp_path: Path) -> None:
    COPIES[name]().write(tmp_path)
    assert f"\nsource: {name}: " in look(tmp_path)


def test_names_the_first_four_sources(tmp_path: Path) -> None:
    write_corpus(tmp_path / "nih")
    row = f"CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP{',' * 14}"
    write(
        tmp_path / "chexpert", {"train.csv": f"{HEADER}\n{row}\n", "train/patient00001/study1/view1_frontal.jpg": png()}
    )
    write(tmp_path / "folders", {"Training/Normal/a.png": png(), "Training/TB/b.png": png(), "Testing/TB/c.png": png()})
    write(tmp_path / "dicom", {"labels.csv": "file,Mass\nx.dcm,1\n", "x.dcm": film(1, **instance(1, "77"))})
    for name in ("nih", "chexpert", "folders", "dicom"):
        said = look(tmp_path / name)
        assert f"\nsource: {name}: " in said, said
        assert f"source={name} source.root=" in said
    assert "Training = train_val" in look(tmp_path / "folders")


OWN_TABLE = (
    "Bild;Pat-ID;Sex;ViewPos;Age;Pneumothorax;Erguss;Notiz\n"
    "a01.png;7;M;PA;61Y;1;0;x\na02.png;7;M;AP;61Y;0;1;y\na03.png;8;F;PA;;0;0;z\n"
).replace("Pat-ID", "PatientID")


def test_unknown_table_is_explained_and_gives_a_configuration_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, settings = tmp_path / "films", tmp_path / "conf"
    write(root, {"list.csv": OWN_TABLE, **{f"store/a0{number}.png": png(number) for number in (1, 2, 3)}})
    said = look(root)
    assert "source: none of the known forms: use table, by list.csv" in said
    assert "Bild: image; its cells name 100% of the image files" in said
    for line in (
        "PatientID: patient; its name; 2 different cells",
        "ViewPos: view; PA (2), AP (1)",
        "Notiz: not known",
    ):
        assert line in said
    shutil.copytree(conf.CONF, settings)
    for module in (conf, inspect.conf):
        monkeypatch.setattr(module, "CONF", settings)
    assert "wrote" in look(root, "mine")
    source = LabelTable.find(conf.load(["source=mine"]).source)  # type: ignore[arg-type]
    assert source.vocabulary == ("Pneumothorax",)
    rows = source.entries.to_pylist()
    assert [(row["key"], row["patient_id"], row["view"], row["sex"]) for row in rows] == [
        ("a01.png", "mine:7", "PA", "M"),
        ("a02.png", "mine:7", "AP", "M"),
        ("a03.png", "mine:8", "PA", "F"),
    ]
    assert yaml.safe_load((settings / "source" / "mine.yaml").read_text())["columns"]["age"] == "Age"
    with pytest.raises(UserError, match=r"mine\.yaml exists: choose another name"):
        look(root, "mine")


def test_several_rows_an_image_are_proposed_as_such(tmp_path: Path) -> None:
    write(tmp_path, {"y.csv": "name,labels\nk1.png,Mass\nk1.png,Edema\nk2.png,No Finding\n", "in/k1.png": png()})
    assert "rows: several" in look(tmp_path)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"films/1.png": png(), "films/2.png": png(2)}, "source: none: use table, once a label table names"),
        (
            {"report.csv": "id,text\n1,a\n", "batch7/1.png": png(), "batch8/2.png": png(2)},
            "source: none: use table, once a label table names",
        ),
        (
            {"y.csv": "name,labels\nk1,Mass|Edema\nk2,No Finding\n", "in/k1.png": png(), "in/k2.png": png(2)},
            "source: none of the known forms: use table, by y.csv",
        ),
    ],
)
def test_says_none_for_what_it_does_not_know(files: Mapping[str, bytes | str], line: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    assert line in look(tmp_path)


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"inspect=.*nowhere is not a folder"):
        look(tmp_path / "nowhere")
