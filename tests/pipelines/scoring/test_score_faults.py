"""Scoring when processes die without warning: real processes, killed by SIGKILL, against an undisturbed run."""

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.inference.fault_isolation import CRASHES_READER
from pipelines.scoring.ledger import Ledger
from pipelines.training.register import register
from tests.support.corpus import encode_png, make_noise
from tests.support.models import make_bundle
from tests.support.processes import (
    COMMAND_TIMEOUT_S,
    MARK,
    marked_processes,
    process_environment,
    start_process,
    three_node_cluster,
    wait_for_success,
    wait_until,
)

pytestmark = pytest.mark.slow

COUNT = 480
TWINS, BROKEN = 6, 5  # of these, files with the content of another, and files that are no image
CONTENTS = COUNT - TWINS - BROKEN
SIZE = 224
# Few rows a piece, a commit after nearly each, a network that takes its time: so there are many moments to die at.
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
    """Images of noise, which take the longest to decode."""
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
    """What the last run reported."""
    found: dict[str, Any] = json.loads(Path(models.uri("reports", "score.json")).read_text())["facts"]
    return found


def count_rows(out: Lake) -> int:
    """Contents that are committed."""
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
    """What was scored, by content; and what the files are, by name. Each once."""
    book = Ledger(out, 1)
    contents, files = (out.read(table).to_pandas() for table in (book.contents, book.files))
    assert contents["sha256"].is_unique and files["path"].is_unique
    return contents.set_index("sha256").sort_index(), files.set_index("image_id").sort_index()


def assert_same(out: Lake, calm: Lake) -> None:
    """No gap, no double, the same numbers."""
    (contents, files), (wanted, named) = read_outcome(out), read_outcome(calm)
    assert len(wanted) == CONTENTS and len(named) == COUNT and named["reason"].notna().sum() == BROKEN
    assert list(contents.index) == list(wanted.index) and list(files.index) == list(named.index)
    pd.testing.assert_frame_equal(files[["path", "sha256", "reason"]], named[["path", "sha256", "reason"]])
    values = ["triage_score", *(name for name in wanted.columns if name.startswith("prob_"))]
    np.testing.assert_allclose(contents[values], wanted[values], rtol=0, atol=1e-5)
    assert list(contents["bucket"]) == list(wanted["bucket"])


def wait_for(process: subprocess.Popen[str], true: Callable[[], bool], what: str) -> None:
    """Wait for something that must come before the process ends."""

    def come() -> bool:
        if process.poll() is not None:
            pytest.fail(f"{what} never came: {process.communicate()[0]}")
        return true()

    wait_until(come, COMMAND_TIMEOUT_S, what)


def workers(mark: str, title: str) -> list[psutil.Process]:
    """Ray's processes whose title, which tells what they run, has this in it."""
    found = []
    for one in marked_processes(mark):
        with contextlib.suppress(psutil.Error):
            words = " ".join(one.cmdline())
            if words.startswith("ray::") and title in words:
                found.append(one)
    return found


@pytest.fixture(scope="module")
def calm(models: Lake, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The scores of a run in which nothing goes wrong."""
    out = Lake(str(tmp_path_factory.mktemp("calm") / "out"))
    with process_environment() as env:
        wait_for_success(start_scoring(env, models, folder, out))
    return out


def test_killed_driver_loses_only_uncommitted_scores(models: Lake, folder: Path, calm: Lake, tmp_path: Path) -> None:
    """Three times, at random moments; then a run to the end, and one that finds nothing to do."""
    out, draws = Lake(str(tmp_path / "out")), random.Random()
    for third in range(3):
        before, enough = count_rows(out), int(COUNT / 4 * (third + draws.random()))
        with process_environment() as env:
            process = start_scoring(env, models, folder, out)
            wait_for(process, partial(has_more_rows, out, max(before, enough)), "a commit")
            process.kill()
            process.communicate(timeout=60)
            wait_until(partial(no_process_left, env[MARK]), 60, "the end of what the driver had started")
        assert before < count_rows(out) < CONTENTS, "it was killed in the middle"
    there = count_rows(out)
    with process_environment() as env:
        wait_for_success(start_scoring(env, models, folder, out))
        assert_same(out, calm)
        last = report_facts(models)
        assert last["scored"] <= COUNT - BROKEN - there and last["scored"] + last["already"] == COUNT - BROKEN
        book = Ledger(out, 1)
        versions = out.version(book.contents), out.version(book.files)
        wait_for_success(start_scoring(env, models, folder, out))
    assert report_facts(models)["scored"] == 0 and (out.version(book.contents), out.version(book.files)) == versions


@pytest.mark.parametrize(("title", "after"), [("MapBatches(read_rows)", 0), ("MapBatches(_Forward)", COUNT // 10)])
def test_run_survives_killed_worker(
    title: str, after: int, models: Lake, folder: Path, calm: Lake, tmp_path: Path
) -> None:
    """One that reads, while all are still to be scored, or the one that holds the network."""
    out = Lake(str(tmp_path / "out"))
    with process_environment() as env:
        process = start_scoring(env, models, folder, out)
        wait_for(process, lambda: count_rows(out) >= after and bool(workers(env[MARK], title)), f"a process of {title}")
        workers(env[MARK], title)[0].kill()
        assert count_rows(out) < CONTENTS
        wait_for_success(process)
    assert report_facts(models)["scored"] == COUNT - BROKEN
    assert_same(out, calm)


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The network does not fit into the head node: the driver's."""
    with three_node_cluster(tmp_path_factory.mktemp("n")) as env:
        yield env


def test_run_survives_killed_node(
    nodes: dict[str, str], models: Lake, folder: Path, calm: Lake, tmp_path: Path
) -> None:
    """The one that holds the network."""
    out = Lake(str(tmp_path / "out"))
    process = start_scoring(nodes, models, folder, out, f"cluster.address={nodes['RAY_ADDRESS']}")
    title = "_Forward"
    wait_for(process, lambda: count_rows(out) > COUNT // 10 and bool(workers(nodes[MARK], title)), "a network")
    node = workers(nodes[MARK], title)[0].parent()
    assert node is not None and node.name() == "raylet"
    node.kill()
    assert count_rows(out) < CONTENTS
    wait_for_success(process)
    assert_same(out, calm)


# Makes OpenCV die of images of a certain size, in Ray's workers alone, where it is loaded anyway.
DEADLY = """
import sys
if any("default_worker" in word for word in sys.orig_argv):
    import os, signal
    import cv2
    decode = cv2.imdecode
    def deadly(data, flags):
        image = decode(data, flags)
        if image is not None and image.shape == (64, 65):
            os.kill(os.getpid(), signal.SIGSEGV)
        return image
    cv2.imdecode = deadly
"""


def test_files_that_crash_their_readers_are_quarantined(models: Lake, folder: Path, calm: Lake, tmp_path: Path) -> None:
    """And cost no other file its score; the next run does not try them again."""
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    corpus, out, book = tmp_path / "corpus", Lake(str(tmp_path / "out")), Ledger(Lake(""), 1)
    corpus.mkdir()
    names = sorted(path.name for path in folder.iterdir())[:100]
    for name in names:
        (corpus / name).symlink_to(folder / name)
    deadly = {"0010 bad.png": 5001, "0090 bad.png": 5002}
    for name, seed in deadly.items():
        (corpus / name).write_bytes(encode_png(make_noise(seed, 64, 65)))
    with process_environment(PYTHONPATH=str(tmp_path)) as env:
        wait_for_success(start_scoring(env, models, corpus, out))
        first = report_facts(models)
        assert first["quarantined"] == {CRASHES_READER: 2} and first["scored"] == 100
        contents, files = read_outcome(out)
        assert set(files.index[files["reason"] == CRASHES_READER]) == set(deadly)
        wanted = read_outcome(calm)[0].loc[contents.index]
        np.testing.assert_allclose(contents["triage_score"], wanted["triage_score"], rtol=0, atol=1e-5)
        assert files.loc[names, "sha256"].nunique() == len(contents)
        versions = out.version(book.contents), out.version(book.files)
        wait_for_success(start_scoring(env, models, corpus, out))
    assert (report_facts(models)["scored"], report_facts(models)["already"]) == (0, 100)
    assert (out.version(book.contents), out.version(book.files)) == versions
