"""Scoring from one S3 bucket into another, and as a submitted Ray job whose log shows the progress."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from pipelines.scoring import corpus
from pipelines.scoring.ledger import read_scores
from tests.pipelines.scoring.folder import FILES, OTHERS, REFUSED, assert_matches_bundle, write_files
from tests.support.paths import ROOT
from tests.support.pngs import add_comment
from tests.support.processes import job_server, submit_job, wait_for_job_server
from tests.support.s3 import start_s3_server

pytestmark = pytest.mark.slow

CORPUS, OUT = "s3://xray/incoming/today", "s3://xray/triage"
MANY = 1500  # images, so that the progress is logged more than once


def test_scores_s3_bucket_into_another(
    registered: Config, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "folder", FILES | OTHERS)
    words = [f"corpus={CORPUS}", f"out={OUT}", f"lake={registered.lake}", f"gallery={tmp_path / 'urgent.html'}"]
    (tmp_path / "s3").mkdir()
    with start_s3_server(tmp_path / "s3", "xray") as s3:
        s3.upload(tmp_path / "folder", "incoming/today")
        command = [sys.executable, "-m", "pipelines.score", *words]
        environment = {**s3.env, "PYTHONPATH": str(ROOT)}
        for scored in (6, 0):
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert s3.secret not in done.stdout + done.stderr
            report = Lake(registered.lake).read_report("score")
            assert report is not None and report["facts"]["scored"] == scored
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        found = read_scores(Lake(OUT), 1, corpus.list_folder_corpus(CORPUS).rows).to_pandas().set_index("image_id")
    assert found["not_scored"].dropna().to_dict() == REFUSED
    for name in FILES.keys() - REFUSED.keys():
        assert_matches_bundle(bundle, found.loc[name], FILES[name])
    assert (tmp_path / "urgent.html").read_text().count("<article") == len(FILES) - len(REFUSED)


def test_submitted_job_logs_its_progress(
    registered: Config, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Images done, images/s, buckets so far and the time left, as lines of the job's log."""
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (2048, 2048))
    data = cv2.imencode(".png", smooth)[1].tobytes()
    (tmp_path / "folder").mkdir()
    for number in range(MANY):
        (tmp_path / "folder" / f"{number:05d}.png").write_bytes(add_comment(data, str(number)))
    words = (f"corpus={tmp_path / 'folder'}", f"out={tmp_path / 'out'}", f"lake={registered.lake}")
    with job_server(tmp_path_factory.mktemp("j")) as env:
        wait_for_job_server(env)
        done = submit_job(env, "pipelines.score", *words, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    buckets = r"\d[\d,]* urgent, \d[\d,]* soon, \d[\d,]* routine"
    pattern = rf"score  ([\d,]+)/1,500 images  ([\d,]+) images/s  {buckets}  ETA \d+:\d\d"
    counts = [int(match[0].replace(",", "")) for match in re.findall(pattern, done.stdout)]
    assert counts and counts == sorted(counts), done.stdout[-3000:]
    assert read_scores(Lake(str(tmp_path / "out")), 1).num_rows == MANY
