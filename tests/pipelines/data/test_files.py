"""Listing a folder of files: names that are no text, and links."""

import os
from pathlib import Path

from pipelines.data.decode import decode_files
from pipelines.data.files import InputFolder
from pipelines.spark.file_inspection import inspect_file


def list_paths(root: Path) -> list[str]:
    paths: list[str] = InputFolder.open(str(root)).list_images()["path"].to_pylist()
    return paths


def test_name_that_is_not_utf8_is_a_file_that_cannot_be_read_and_stops_nothing(tmp_path: Path) -> None:
    bad = os.path.join(os.fsencode(tmp_path), b"t\xf3rax.png")
    with open(bad, "wb") as file:
        file.write(b"x")
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"\xe9"))
    (tmp_path / os.fsdecode(b"\xe9") / "b.png").write_bytes(b"x")
    (tmp_path / "gut ü.png").write_bytes(b"x")
    assert list_paths(tmp_path) == ["\\xe9/b.png", "gut ü.png", "t\\xf3rax.png"]
    facts = inspect_file(f"{tmp_path}/t\\xf3rax.png")
    assert facts == {"file_reason": "unreadable_file", "file_detail": "its name is not UTF-8: rename the file"}
    assert decode_files([f"{tmp_path}/t\\xf3rax.png"], 32)[1] == ["file_missing"]
    assert InputFolder.open(str(tmp_path)).list_files() == ["gut ü.png"]


def test_each_file_is_listed_once_whatever_links_lead_around(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "a" / "b").mkdir(parents=True)
    for name in ("x.png", "a/y.png", "a/b/z.png"):
        (root / name).write_bytes(b"x")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "other.png").write_bytes(b"x")
    for link, target in (("loop", ".."), ("self", "."), ("a/up", ".."), ("a/b/top", "../../.."), ("again", "a")):
        (root / link).symlink_to(target)
    (root / "c").symlink_to(tmp_path / "beside")
    assert list_paths(root) == ["a/b/z.png", "a/y.png", "c/other.png", "x.png"], "what lies beside once, too"
