"""The ETL on a machine that grants little: read-only data, no HOME, one core, 64 MiB of shared memory, dead proxies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chestai.lake.lake import Lake
from tests.support.corpus import write_corpus
from tests.support.paths import ROOT

DEAD = "http://127.0.0.1:9"  # the discard port: nobody answers
MOUNTS = (
    "mount -t tmpfs -o size=64m shm /dev/shm && mount --bind {data} {data} && mount -o remount,ro,bind {data} && exec "
)


@pytest.mark.slow
def test_etl_runs_where_little_is_granted(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "taskset"))):
        pytest.skip("needs root, unshare and taskset to make such a machine")
    data, lake = tmp_path / "data", tmp_path / "lake ü (1)"
    write_corpus(data)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C",
        "MLFLOW_TRACKING_URI": DEAD,
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), DEAD),
    }
    words = ["source=nih", f"source.root={data}", f"lake={lake}", "source.box_pixels=null"]
    command = ["taskset", "-c", "0", sys.executable, "-m", "pipelines.etl", *words]
    line = MOUNTS.format(data=data) + " ".join(f"'{word}'" for word in command)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", line],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    snapshot = Lake(str(lake)).find_snapshot()
    assert snapshot.accounting["gold"] > 0 and f"snapshot {snapshot.snapshot_id}" in done.stdout
