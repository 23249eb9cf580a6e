"""Listing of a folder with links: each folder once, and nothing outside of the prefixes that a job may read."""

import os
from pathlib import Path

import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.lake.lake import Lake
from pipelines.data.files import InputFolder
from pipelines.scoring.corpus import find_corpus
from serve.inference.batch_jobs import JobRequest
from serve.inference.job_run import job_command
from tests.support.models import image


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder `in/today` whose links lead out, to nothing, to itself and to others of its folders."""
    for name in ("in/today/a.png", "in/today/zzz/b.png", "in/other/c.png", "out/secret.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image(1))
    today = tmp_path / "in" / "today"
    links = {
        "again": ".",
        "up": "..",
        "alias": "zzz",
        "escape": "../../out",
        "escape.png": "../../out/secret.png",
        "nowhere.png": "missing.png",
        "round.png": "round.png",
        "near.png": "../other/c.png",
        "zzz/back": "..",
        "device.png": "/dev/zero",
    }
    for name, target in links.items():
        (today / name).symlink_to(target)
    return tmp_path


def list_ids(folder: Path, *prefixes: str) -> list[str]:
    rows = find_corpus(str(folder), Lake(""), prefixes=prefixes).rows
    assert rows["path"].to_pylist() == [f"{folder}/{name}" for name in rows["image_id"].to_pylist()]
    return list(rows["image_id"].to_pylist())


def test_lists_each_folder_once_under_its_own_name(site: Path) -> None:
    inside = ["a.png", "near.png", "up/other/c.png", "zzz/b.png"]
    assert list_ids(site / "in" / "today") == sorted([*inside, "escape.png", "escape/secret.png"])
    assert list_ids(site / "in" / "today", str(site / "in")) == inside


def test_lists_nothing_outside_of_the_prefixes(site: Path) -> None:
    today = site / "in" / "today"
    assert list_ids(today, str(today)) == ["a.png", "zzz/b.png"]
    assert list_ids(today, "s3://bucket/x", str(site / "out"), str(today)) == [
        "a.png",
        "escape.png",
        "escape/secret.png",
        "zzz/b.png",
    ]
    (site / "linked").symlink_to(site / "out")
    for folder, prefixes in (("out", ("in",)), ("linked", ("in",)), ("inside", ("in",))):
        with pytest.raises(UserError, match=r"corpus=.* (lies in none of score\.prefixes|is not a folder)"):
            list_ids(site / folder, *(str(site / prefix) for prefix in prefixes))
    with pytest.raises(UserError, match=r"lies in none of score\.prefixes"):
        list_ids(today, "s3://bucket/in")


def test_prefix_itself_may_be_a_link(site: Path) -> None:
    (site / "entry").symlink_to(site / "in")
    assert list_ids(site / "entry" / "today", str(site / "entry" / "today")) == ["a.png", "zzz/b.png"]


def test_every_source_lists_each_folder_once(site: Path) -> None:
    listing = InputFolder.open(str(site / "in" / "today" / "zzz")).list_images()
    assert sorted(listing["key"].to_pylist()) == ["a.png", "b.png", "c.png", "escape.png", "near.png", "secret.png"]


def test_name_that_is_not_text_stops_nothing(site: Path) -> None:
    (site / "out" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    assert list_ids(site / "out") == ["caf\\xe9.png", "secret.png"]


def test_prefixes_reach_the_job() -> None:
    prefixes = ["/data/in, 'our' ${oc.env:HOME}", "s3://xray/incoming"]
    config = conf.load(["cluster=laptop", f"serve.prefixes=[{','.join(map(conf.quote, prefixes))}]"])
    words = job_command(config, "j", JobRequest("/data/in", 1), None)
    assert conf.load(words[3:]).score.prefixes == config.serve.prefixes == tuple(prefixes)
