"""A stage through `ray job submit`, on a cluster that `ray start --head` made, with token authentication."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chestai.lake.lake import Lake
from tests.support.chain import SMALL, Chain
from tests.support.processes import job_server, submit, until_up


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with job_server(tmp_path_factory.mktemp("j")) as env:
        until_up(env)
        yield env


@pytest.mark.slow
def test_etl_runs_as_a_job(built: Chain, head: dict[str, str], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    done = submit(head, "pipelines.etl", *SMALL, f"lake={lake}", f"phantom.root={built.config.phantom.root}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert built.lake.snapshot().snapshot_id in done.stdout, "the log is followed"
    assert Lake(str(lake)).snapshot().snapshot_id == built.lake.snapshot().snapshot_id


def test_a_mistake_fails_the_job_in_one_line(head: dict[str, str], tmp_path: Path) -> None:
    done = submit(head, "pipelines.train", f"lake={tmp_path}/none")
    assert done.returncode != 0
    assert "holds no build: run `python -m pipelines.etl" in done.stdout


def test_without_the_token_nothing_is_submitted(head: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("0" * 64)
    stranger = {**head, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}
    done = submit(stranger, "pipelines.train", f"lake={tmp_path}/none", timeout=60)
    assert done.returncode != 0 and "holds no build" not in done.stdout
