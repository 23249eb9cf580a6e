"""Scoring a part of a corpus, the status file of a run, and atomic writes to paths and buckets."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.atomic_write import atomic_write
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, SCHEMAS
from pipelines import score
from pipelines.scoring import corpus, status
from pipelines.scoring.ledger import BUCKETS
from tests.pipelines.scoring.folder import score_config, write_files
from tests.serve.support.service import fill_lake
from tests.support.chain import run_quietly
from tests.support.models import image
from tests.support.s3 import start_s3_server

KEYS = {"state", "done", "total", "buckets", "images_per_second", "eta_seconds", "detail", "result"}
NAMES = ("2024/a.png", "2024/07/b.png", "2024/c.jpg", "2025/a.png", "[x]?.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path / "in", {name: image(seed, suffix=Path(name).suffix) for seed, name in enumerate(NAMES)})
    return tmp_path / "in"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with two images of `test` and one of `train`."""
    lake = Lake(str(tmp_path / "lake"))
    fill_lake(lake, tmp_path)
    rows = lake.read(IMAGES).to_pylist()
    more = pa.Table.from_pylist([{**rows[0], "image_id": "other", "split": "train"}], schema=SCHEMAS[IMAGES])
    version = lake.write(IMAGES, more, mode="append")
    build = lake.find_snapshot()
    lake.publish(dataclasses.replace(build, snapshot_id="snap-2", built_at=now(), versions={IMAGES: version}))
    return lake


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("2024/*", ["2024/07/b.png", "2024/a.png", "2024/c.jpg"]),
        ("*.png", ["2024/07/b.png", "2024/a.png", "2025/a.png", "[x]?.png"]),
        ("202?/a.png", ["2024/a.png", "2025/a.png"]),
        ("[[]x[]][?].png", ["[x]?.png"]),
        ("*.JPG", None),
        ("a.png", None),
        ("2024", None),
    ],
)
def test_glob_matches_whole_path_below_folder(folder: Path, match: str, found: list[str] | None) -> None:
    if found is not None:
        part = corpus.find_corpus(str(folder), Lake(""), match)
        assert sorted(part.rows["image_id"].to_pylist()) == found and match in part.name
        return
    with pytest.raises(UserError) as caught:
        corpus.find_corpus(str(folder), Lake(""), match)
    assert str(caught.value) == f"score.match={match} matches none of the 5 images of {folder}"


def test_split_and_glob_narrow_the_lake(lake: Lake) -> None:
    def ids(**part: str) -> list[str]:
        return list(corpus.find_corpus("lake", lake, **part).rows["image_id"].to_pylist())

    assert ids() == ["gone", "other", "stored"] and ids(split="train") == ["other"]
    assert ids(split="test", match="s*") == ["stored"] and ids(match="*o*e*") == ["gone", "other", "stored"]
    with pytest.raises(UserError, match=r"score\.split=val has no image in snapshot snap-2: choose one of test, train"):
        ids(split="val")
    with pytest.raises(UserError, match=r"score\.split=test is for images of the lake"):
        corpus.find_corpus("/in", lake, split="test")


@pytest.mark.usefixtures("in_process")
def test_scores_part_of_folder_and_reports_status(
    registered: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports hold only the scored part, though the ledger holds more. The status counts up to the corpus's total."""
    statuses: list[dict[str, Any]] = []
    write_status = status.StatusFile.write

    def record_write(self: status.StatusFile, *args: Any, **more: Any) -> None:
        write_status(self, *args, **more)
        statuses.append(json.loads(status_file.read_text()))

    monkeypatch.setattr(status.StatusFile, "write", record_write)
    monkeypatch.setattr(status, "WRITE_EVERY_S", 0.0)
    status_file, csv, queue = tmp_path / "new" / "status.json", tmp_path / "scores.csv", tmp_path / "queue.csv"
    out = str(tmp_path / "out")
    paths: dict[str, Any] = {"status": str(status_file), "csv": str(csv), "worklist": str(queue)}
    config = score_config(registered, corpus=str(folder), out=out, **paths)
    run_quietly(score.run, score_config(config, match="2025/*"))
    assert list(pd.read_csv(csv)["image_id"]) == ["2025/a.png"] == list(pd.read_csv(queue)["image_id"])
    run_quietly(score.run, score_config(config, match="2024/*"))
    wanted = {"2024/a.png", "2024/07/b.png", "2024/c.jpg"}
    assert {*pd.read_csv(csv)["image_id"]} == wanted == {*pd.read_csv(queue)["image_id"]}
    run_quietly(score.run, config)
    assert all(set(content) == KEYS for content in statuses)
    runs: list[list[dict[str, Any]]] = [[]]
    for content in statuses:
        runs[-1].append(content)
        if content["state"] == "done":
            runs.append([])
    assert [len(run) > 2 for run in runs] == [True, True, True, False]
    for run, before, total in zip(runs, (0, 0, 4), (1, 3, 5), strict=False):
        assert [content["state"] for content in run] == ["running"] * (len(run) - 1) + ["done"]
        assert run[0]["total"] is None and run[1]["done"] == before
        assert [content["total"] for content in run[1:]] == [total] * (len(run) - 1)
        assert [content["done"] for content in run[1:]] == sorted(content["done"] for content in run[1:])
        assert run[-1]["done"] == total == sum(run[-1]["buckets"].values()) and set(run[-1]["buckets"]) == {*BUCKETS}
        assert run[-1]["result"] == {"csv": str(csv), "table": f"{out}/scores/1"} and run[-1]["detail"] is None
    assert list(tmp_path.glob("**/*.part")) == []


def test_status_holds_failure_as_one_line(registered: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status_file = tmp_path / "status.json"

    def fail_with(error: BaseException) -> dict[str, Any]:
        def raise_error(*_: Any, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(score, "find_corpus", raise_error)
            with pytest.raises(type(error)):
                run_quietly(score.run, score_config(registered, corpus=str(tmp_path), status=str(status_file)))
        found: dict[str, Any] = json.loads(status_file.read_text())
        assert set(found) == KEYS and found["state"] == "failed"
        return found

    assert fail_with(UserError("corpus=x holds nothing"))["detail"] == "corpus=x holds nothing"
    assert (
        fail_with(RuntimeError("Traceback:\n  line 7\nValueError: it broke"))["detail"]
        == "failed: ValueError: it broke"
    )
    assert fail_with(KeyboardInterrupt())["detail"] == "stopped"


def test_unwritable_status_is_refused_at_start_and_ignored_later(
    registered: Config, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "file").touch()
    for path in (f"{tmp_path}/file/status.json", "moon://bucket/status.json"):
        with pytest.raises(UserError, match=r"score\.status=.* cannot be written"):
            run_quietly(score.run, score_config(registered, corpus=str(tmp_path), status=path))
    with status.open_status(str(tmp_path / "folder" / "status.json")) as running:
        running.start(0, 8)
        running.path = f"{tmp_path}/file/status.json"
        running.finish({}, None, {})
    assert "cannot be written" in capsys.readouterr().out


def test_status_holds_rate_and_eta(tmp_path: Path) -> None:
    status_file = tmp_path / "status.json"
    with status.open_status(str(status_file)) as running:
        running.start(2, 10)
        running.progress(4, {"urgent": 2}, 3.0)
        assert json.loads(status_file.read_text())["done"] == 2, "it is written at most every few seconds"
        running.written -= status.WRITE_EVERY_S
        running.progress(4, {"urgent": 2}, 3.0)
        found = json.loads(status_file.read_text())
    assert (found["done"], found["images_per_second"], found["eta_seconds"]) == (4, 3.0, 2.0)
    assert found["buckets"] == {"urgent": 2}


def test_atomic_write_replaces_whole_file_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3").mkdir()
    with start_s3_server(tmp_path / "s3", "xray") as s3:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        for path in (str(tmp_path / "new" / "a b%20.txt"), "s3://xray/some where/a b%20.txt"):
            with atomic_write(path) as part:
                part.write_text("old")
            with pytest.raises(ValueError), atomic_write(path) as part:
                part.write_text("half")
                raise ValueError
            assert read_bytes(path) == b"old"
            with atomic_write(path) as part:
                part.write_text("new")
                assert read_bytes(path) == b"old"
            assert read_bytes(path) == b"new"
        assert s3.keys() == ["some where/a b%20.txt"] and len(list((tmp_path / "new").iterdir())) == 1
        with status.open_status("s3://xray/jobs/1/status.json") as running:
            running.start(0, 1)
            assert json.loads(read_bytes("s3://xray/jobs/1/status.json"))["total"] == 1
