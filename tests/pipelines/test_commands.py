"""The commands as a person types them: one line for a mistake, nothing left behind after Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chestai.lake.lake import Lake
from chestai.lake.schemas import STATS
from tests.support.chain import SMALL, Chain
from tests.support.paths import ROOT
from tests.support.processes import MARK, marked_processes, wait_until


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("stage", ["train", "evaluate", "score"])
def test_a_stage_without_a_lake_names_the_command_that_makes_one(stage: str, tmp_path: Path) -> None:
    done = call(f"pipelines.{stage}", f"lake={tmp_path / 'none'}")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"pipelines.{stage}: the lake {tmp_path / 'none'} holds no build: "
        f"run `python -m pipelines.etl lake={tmp_path / 'none'}`"
    ]


def test_wrong_keys_and_values_are_one_line(tmp_path: Path) -> None:
    for word, answer in (
        ("train.epoch=3", "pipelines.run: unknown key train.epoch; did you mean train.epochs?"),
        ("source.root=/nowhere/at/all", "pipelines.run: source.root=/nowhere/at/all"),
        ("train.lr=fast", "pipelines.run: train.lr='fast' is wrong"),
    ):
        done = call("pipelines.run", word, f"lake={tmp_path}/lake")
        assert done.returncode == 2, done
        assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith(answer), done.stderr


def test_help_lists_the_keys() -> None:
    done = call("pipelines.train", "--help")
    assert done.returncode == 0 and "batch_size: 32" in done.stdout


@contextlib.contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command in a session of its own, as a terminal starts it; killed at the end whatever happens."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, mark
    finally:
        for child in marked_processes(mark):
            with contextlib.suppress(psutil.Error):
                child.kill()
        process.wait(timeout=10)


def interrupt(process: subprocess.Popen[str], mark: str, how: str = "Ctrl-C") -> str:
    """Ctrl-C: the terminal sends SIGINT to the whole foreground process group; a cluster ends a job by SIGTERM."""
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    output, _ = process.communicate(timeout=60)
    wait_until(
        lambda: not marked_processes(mark), 30, f"ending {[one.cmdline()[:3] for one in marked_processes(mark)]}"
    )
    return output


@pytest.mark.parametrize(
    ("how", "after_s"),
    [("Ctrl-C", 0.5), *(pytest.param(how, 8, marks=pytest.mark.slow) for how in ("Ctrl-C", "SIGTERM"))],
)
def test_interrupted_in_the_etl(built: Chain, tmp_path: Path, how: str, after_s: float) -> None:
    """While Spark starts, and in its jobs."""
    lake = Lake(str(tmp_path / "lake"))
    words = ("pipelines.etl", *SMALL, f"lake={lake.root}", f"phantom.root={built.config.phantom.root}")
    with started(*words) as (process, mark):
        wait_until(lambda: any("java" in one.name() for one in marked_processes(mark)), 90, "starting Spark")
        time.sleep(after_s)
        output = interrupt(process, mark, how)
    assert process.returncode == 130 and "pipelines.etl: stopped" in output
    assert lake.version(STATS) is None and lake.history() == []


@pytest.mark.slow
def test_interrupted_in_training(built: Chain, tmp_path: Path) -> None:
    config = built.config
    database = tmp_path / "mlflow.db"
    words = ("pipelines.train", *SMALL, f"lake={config.lake}", "train.epochs=500", f"tracking.uri=sqlite:///{database}")
    with started(*words) as (process, mark):
        log = Path(config.lake) / "logs" / "train.log"
        wait_until(lambda: "epoch" in _metrics(database), 180, "the first epoch")
        output = interrupt(process, mark)
    assert process.returncode == 130 and "pipelines.train: stopped" in output, (output, log.read_text()[-2000:])
    assert _statuses(database) == ["KILLED"]


def _rows(database: Path, query: str) -> list[str]:
    import sqlite3

    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        try:
            return [row[0] for row in connection.execute(query)]
        except sqlite3.OperationalError:  # MLflow is still making its tables
            return []


def _metrics(database: Path) -> list[str]:
    return _rows(database, "select distinct key from metrics")


def _statuses(database: Path) -> list[str]:
    return _rows(database, "select status from runs")
