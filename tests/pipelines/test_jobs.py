"""A stage through `ray job submit`, on a cluster that `ray start --head` made, with token authentication."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chestai.lake.lake import Lake
from tests.support.chain import SMALL, Chain
from tests.support.processes import job_server, submit_job, wait_for_job_server


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with job_server(tmp_path_factory.mktemp("j")) as env:
        wait_for_job_server(env)
        yield env


@pytest.mark.slow
def test_etl_runs_as_a_job(built: Chain, head: dict[str, str], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    done = submit_job(head, "pipelines.etl", *SMALL, f"lake={lake}", f"phantom.root={built.config.phantom.root}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert built.lake.find_snapshot().snapshot_id in done.stdout, "the log is followed"
    assert Lake(str(lake)).find_snapshot().snapshot_id == built.lake.find_snapshot().snapshot_id


def submit_mistake(head: dict[str, str], folder: Path) -> tuple[int, str]:
    """Submit the lightest stage with a folder that it must not touch."""
    (folder / "notes.txt").write_text("mine")
    done = submit_job(head, "pipelines.phantom", f"lake={folder}/lake", f"phantom.root={folder}", timeout=120)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_mistake_fails_the_job_in_one_line(head: dict[str, str], tmp_path: Path) -> None:
    status, output = submit_mistake(head, tmp_path)
    assert status != 0
    assert f"pipelines.phantom: phantom.root={tmp_path} holds files that are not a phantom corpus" in output


def test_nothing_is_submitted_without_the_token(head: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("0" * 64)
    status, output = submit_mistake({**head, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}, tmp_path)
    assert status != 0 and "pipelines.phantom:" not in output
