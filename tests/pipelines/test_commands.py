"""The commands as a person types them: one line for a mistake, nothing left behind after Ctrl-C."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chestai.lake.lake import Lake
from chestai.lake.schemas import STATS
from tests.support.chain import SMALL, Chain
from tests.support.commands import run_command
from tests.support.paths import ROOT
from tests.support.processes import MARK, marked_processes, process_environment, start_process, wait_until


def missing_build(stage: str, lake: Path) -> str:
    return f"pipelines.{stage}: the lake {lake} holds no build: run `python -m pipelines.etl lake={lake}`"


@pytest.mark.slow
def test_mistake_ends_the_process_with_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipelines.train", f"lake={tmp_path / 'none'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.strip().splitlines() == [missing_build("train", tmp_path / "none")]


@pytest.mark.parametrize("stage", ["train", "evaluate", "score"])
def test_stage_without_a_lake_names_the_command_that_makes_one(
    stage: str,
    ray_cluster: None,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = run_command(capfd, monkeypatch, f"pipelines.{stage}", f"lake={tmp_path / 'none'}")
    assert done.returncode == 2 and done.stderr.strip().splitlines() == [missing_build(stage, tmp_path / "none")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.epoch=3", "pipelines.run: unknown key train.epoch; did you mean train.epochs?"),
        ("source.root=/nowhere/at/all", "pipelines.run: source.root=/nowhere/at/all"),
        ("train.lr=fast", "pipelines.run: train.lr='fast' is wrong"),
    ],
)
def test_wrong_key_or_value_is_one_line(
    word: str,
    message: str,
    ray_cluster: None,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = run_command(capfd, monkeypatch, "pipelines.run", word, f"lake={tmp_path}/lake")
    assert done.returncode == 2, done
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith(message), done.stderr


def test_help_lists_the_keys(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_command(capfd, monkeypatch, "pipelines.train", "--help")
    assert done.returncode == 0 and "batch_size: 32" in done.stdout


@contextlib.contextmanager
def running_command(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a command in a session of its own, as a terminal does, and yield it with the mark of its processes."""
    with process_environment() as env:
        process = start_process(env, sys.executable, "-m", *words)
        yield process, env[MARK]


def interrupt(process: subprocess.Popen[str], mark: str, signal_name: str = "Ctrl-C") -> str:
    """Interrupt a command and return its output.

    For Ctrl-C the terminal sends SIGINT to the whole foreground process group; a cluster ends a job by SIGTERM.
    """
    if signal_name == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    output, _ = process.communicate(timeout=60)
    wait_until(
        lambda: not marked_processes(mark),
        30,
        f"ending {[process.cmdline()[:3] for process in marked_processes(mark)]}",
    )
    return output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_name", "after_s"),
    [("Ctrl-C", 0.5), ("Ctrl-C", 8), ("SIGTERM", 8)],
)
def test_interrupted_etl_leaves_no_process_and_no_build(
    built: Chain, tmp_path: Path, signal_name: str, after_s: float
) -> None:
    """While Spark starts, and in its jobs."""
    lake = Lake(str(tmp_path / "lake"))
    words = ("pipelines.etl", *SMALL, f"lake={lake.root}", f"phantom.root={built.config.phantom.root}")
    with running_command(*words) as (process, mark):
        wait_until(lambda: any("java" in child.name() for child in marked_processes(mark)), 90, "starting Spark")
        time.sleep(after_s)
        output = interrupt(process, mark, signal_name)
    assert process.returncode == 130 and "pipelines.etl: stopped" in output
    assert lake.version(STATS) is None and lake.list_snapshots() == []


@pytest.mark.slow
def test_interrupted_training_is_a_killed_mlflow_run(built: Chain, tmp_path: Path) -> None:
    config = built.config
    database = tmp_path / "mlflow.db"
    words = ("pipelines.train", *SMALL, f"lake={config.lake}", "train.epochs=500", f"tracking.uri=sqlite:///{database}")
    with running_command(*words) as (process, mark):
        log = Path(config.lake) / "logs" / "train.log"
        wait_until(lambda: "epoch" in query(database, "select distinct key from metrics"), 180, "the first epoch")
        output = interrupt(process, mark)
    assert process.returncode == 130 and "pipelines.train: stopped" in output, (output, log.read_text()[-2000:])
    assert query(database, "select status from runs") == ["KILLED"]


def query(database: Path, statement: str) -> list[str]:
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        try:
            return [row[0] for row in connection.execute(statement)]
        except sqlite3.OperationalError:  # MLflow is still making its tables
            return []
