"""Scoring whose processes are killed by SIGKILL gives the same scores as an undisturbed run."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.data.decoded_file import CRASHES_READER
from pipelines.scoring.ledger import Ledger
from pipelines.training.register import register
from tests.support.corpus import encode_png, make_noise
from tests.support.models import make_bundle
from tests.support.processes import (
    MARK,
    marked_processes,
    process_environment,
    start_process,
    three_node_cluster,
    wait_for_success,
    wait_until,
)
from tests.support.ray_workers import find_ray_workers, wait_while_running

pytestmark = pytest.mark.slow

COUNT, MANY = 560, 520  # files, and some of them: enough for Ray
TWINS, BROKEN = 6, 5  # files with the content of another, and files that are no image
CONTENTS = COUNT - TWINS - BROKEN
SIZE = 224
# Small batches, frequent commits and a slow network leave many moments at which to kill a process.
OFTEN = ("score.batch_size=8", "score.commit_seconds=0.2", "runtime.engine=torch")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake that holds a champion and nothing else."""
    lake = Lake(str(tmp_path_factory.mktemp("models") / "lake"))
    registry = Registry(conf.load().tracking, lake)
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(make_bundle(size=SIZE), registry))
    return lake


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise images, which take the longest to decode."""
    root = tmp_path_factory.mktemp("folder")
    for number in range(COUNT):
        seed = number - 1 if number < 2 * TWINS and number % 2 else number
        data = cv2.imencode(".png", make_noise(seed, 512, 512), [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
        (root / f"{number:04d}.png").write_bytes(data[:5000] if number >= COUNT - BROKEN else data)
    return root


def start_scoring(env: dict[str, str], models: Lake, folder: Path, out: Lake, *more: str) -> subprocess.Popen[str]:
    words = (f"lake={models.root}", f"corpus={folder}", f"out={out.root}", *OFTEN, *more)
    return start_process(env, sys.executable, "-m", "pipelines.score", *words)


def report_facts(models: Lake) -> dict[str, Any]:
    """Read the facts that the last run reported."""
    found: dict[str, Any] = json.loads(Path(models.uri("reports", "score.json")).read_text())["facts"]
    return found


def count_rows(out: Lake) -> int:
    """Count the committed contents."""
    book = Ledger(out, 1)
    if out.version(book.contents) is None:
        return 0
    counts = pa.table(out.open(book.contents).get_add_actions(flatten=True))["num_records"]
    return sum(counts.to_pylist())


def has_more_rows(out: Lake, count: int) -> bool:
    return count_rows(out) > count


def no_process_left(mark: str) -> bool:
    return not marked_processes(mark)


def read_outcome(out: Lake) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the ledger: contents by SHA-256 and files by name, each of them once."""
    book = Ledger(out, 1)
    contents, files = (out.read(table).to_pandas() for table in (book.contents, book.files))
    assert contents["sha256"].is_unique and files["path"].is_unique
    return contents.set_index("sha256").sort_index(), files.set_index("image_id").sort_index()


def assert_same(out: Lake, calm: Lake) -> None:
    """Assert that no file is missing or doubled and that the scores are equal."""
    (contents, files), (wanted, named) = read_outcome(out), read_outcome(calm)
    assert len(wanted) == CONTENTS and len(named) == COUNT and named["reason"].notna().sum() == BROKEN
    assert list(contents.index) == list(wanted.index) and list(files.index) == list(named.index)
    pd.testing.assert_frame_equal(files[["path", "sha256", "reason"]], named[["path", "sha256", "reason"]])
    values = ["triage_score", *(name for name in wanted.columns if name.startswith("prob_"))]
    np.testing.assert_allclose(contents[values], wanted[values], rtol=0, atol=1e-5)
    assert list(contents["bucket"]) == list(wanted["bucket"])


@pytest.fixture(scope="module")
def calm(models: Lake, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The scores of a run in which nothing goes wrong."""
    out = Lake(str(tmp_path_factory.mktemp("calm") / "out"))
    with process_environment() as env:
        wait_for_success(start_scoring(env, models, folder, out))
    return out


def test_killed_driver_loses_only_uncommitted_scores(models: Lake, folder: Path, calm: Lake, tmp_path: Path) -> None:
    """Kills three runs at random moments. The fourth run finishes the scoring, and the fifth finds nothing to do."""
    out, draws = Lake(str(tmp_path / "out")), random.Random()
    for third in range(3):
        before, enough = count_rows(out), int(COUNT / 4 * (third + draws.random()))
        with process_environment() as env:
            process = start_scoring(env, models, folder, out)
            wait_while_running(process, partial(has_more_rows, out, max(before, enough)), "a commit")
            process.kill()
            process.communicate(timeout=60)
            wait_until(partial(no_process_left, env[MARK]), 60, "the end of what the driver had started")
        assert before < count_rows(out) < CONTENTS, "the run was not killed in its middle"
    committed = count_rows(out)
    with process_environment() as env:
        wait_for_success(start_scoring(env, models, folder, out))
        assert_same(out, calm)
        last = report_facts(models)
        assert last["scored"] <= COUNT - BROKEN - committed and last["scored"] + last["already"] == COUNT - BROKEN
        book = Ledger(out, 1)
        versions = out.version(book.contents), out.version(book.files)
        wait_for_success(start_scoring(env, models, folder, out))
    assert report_facts(models)["scored"] == 0 and (out.version(book.contents), out.version(book.files)) == versions


@pytest.mark.parametrize(
    ("title", "after"), [("MapBatches(read_files)", 0), ("MapBatches(PredictorActor)", COUNT // 10)]
)
def test_run_survives_killed_worker(
    title: str, after: int, models: Lake, folder: Path, calm: Lake, tmp_path: Path
) -> None:
    """A reader before anything is scored, or the actor that holds the network."""
    out = Lake(str(tmp_path / "out"))
    with process_environment() as env:
        process = start_scoring(env, models, folder, out)
        wait_while_running(
            process,
            lambda: count_rows(out) >= after and bool(find_ray_workers(env[MARK], title)),
            f"a process of {title}",
        )
        next(iter(find_ray_workers(env[MARK], title).values())).kill()
        assert count_rows(out) < CONTENTS
        wait_for_success(process)
    assert report_facts(models)["scored"] == COUNT - BROKEN
    assert_same(out, calm)


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster whose head node, where the driver runs, has no room for the network."""
    with three_node_cluster(tmp_path_factory.mktemp("n")) as env:
        yield env


def test_run_survives_killed_node(
    nodes: dict[str, str], models: Lake, folder: Path, calm: Lake, tmp_path: Path
) -> None:
    """Kills the node of the actor that holds the network."""
    out = Lake(str(tmp_path / "out"))
    process = start_scoring(nodes, models, folder, out, f"cluster.address={nodes['RAY_ADDRESS']}")
    title = "PredictorActor"
    wait_while_running(
        process, lambda: count_rows(out) > COUNT // 10 and bool(find_ray_workers(nodes[MARK], title)), "a network"
    )
    node = next(iter(find_ray_workers(nodes[MARK], title).values())).parent()
    assert node is not None and node.name() == "raylet"
    node.kill()
    assert count_rows(out) < CONTENTS
    wait_for_success(process)
    assert_same(out, calm)


# Makes OpenCV crash where images of one size are resized, only in Ray's workers, which import it anyway.
CRASHING_OPENCV = """
import sys
if any("default_worker" in word for word in sys.orig_argv):
    import os, signal
    import cv2
    resize = cv2.resize
    def crashing(image, *args, **kwargs):
        if image.shape == (64, 65):
            os.kill(os.getpid(), signal.SIGSEGV)
        return resize(image, *args, **kwargs)
    cv2.resize = crashing
"""


def test_files_that_crash_their_readers_are_quarantined(models: Lake, folder: Path, calm: Lake, tmp_path: Path) -> None:
    """All other files are scored, and the next run does not try the crashing ones again."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING_OPENCV)
    corpus, out, book = tmp_path / "corpus", Lake(str(tmp_path / "out")), Ledger(Lake(""), 1)
    corpus.mkdir()
    names = sorted(path.name for path in folder.iterdir())[:MANY]
    for name in names:
        (corpus / name).symlink_to(folder / name)
    crashing = {"0010 bad.png": 5001, "0090 bad.png": 5002}
    for name, seed in crashing.items():
        (corpus / name).write_bytes(encode_png(make_noise(seed, 64, 65)))
    with process_environment(PYTHONPATH=str(tmp_path)) as env:
        wait_for_success(start_scoring(env, models, corpus, out))
        first = report_facts(models)
        assert first["quarantined"] == {CRASHES_READER: 2} and first["scored"] == MANY
        contents, files = read_outcome(out)
        assert set(files.index[files["reason"] == CRASHES_READER]) == set(crashing)
        wanted = read_outcome(calm)[0].loc[contents.index]
        np.testing.assert_allclose(contents["triage_score"], wanted["triage_score"], rtol=0, atol=1e-5)
        assert files.loc[names, "sha256"].nunique() == len(contents)
        versions = out.version(book.contents), out.version(book.files)
        wait_for_success(start_scoring(env, models, corpus, out))
    assert (report_facts(models)["scored"], report_facts(models)["already"]) == (0, MANY)
    assert (out.version(book.contents), out.version(book.files)) == versions
