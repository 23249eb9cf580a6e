"""Few images are scored without Ray: the same rows and numbers, broken files included."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.imaging import sandbox
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.runtimes import Runtime, open_session
from pipelines import score
from pipelines.scoring import place
from tests.pipelines.scoring.folder import (
    FILES,
    OTHERS,
    REFUSED,
    assert_matches_bundle,
    read_corpus_scores,
    score_config,
    write_files,
)
from tests.support.chain import run_quietly
from tests.support.models import image
from tests.support.paths import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    write_files(root, FILES | OTHERS)
    return root


def run_command(config: Config, *settings: str) -> dict[str, Any]:
    """Run `python -m pipelines.score`, check that it imports neither Ray nor other slow packages, return its facts."""
    code = (
        "import sys\nfrom pipelines import score\nfrom chestai.cli.main import run_stage_command\n"
        "try: run_stage_command('pipelines.score', score.run)\n"
        "finally: assert not {'ray', 'timm', 'highdicom', 'fhir'} & sys.modules.keys()"
    )
    words = ["cluster=laptop", f"lake={config.lake}", f"score.batch_size={config.score.batch_size}", *settings]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    facts: dict[str, Any] = json.loads((Path(config.lake) / "reports" / "score.json").read_text())["facts"]
    return facts


@pytest.mark.slow
def test_command_scores_a_folder_of_all_kinds_of_files_without_ray(
    registered: Config, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    open_session(bundle.stored, Runtime("auto"))  # exports the network, which needs timm
    out = Lake(str(tmp_path / "out"))
    facts = run_command(registered, f"corpus={folder}", f"out={out.root}", f"csv={tmp_path / 'scores.csv'}")
    assert facts["scored_by"] == "this process, without Ray"
    assert (facts["images"], facts["scored"], facts["ignored_files"]) == (10, 6, 2)
    assert facts["quarantined"] == {"empty_file": 1, "not_an_image": 1, "not_frontal": 1, "truncated": 1}
    found = read_corpus_scores(out, str(folder))
    assert found["not_scored"].dropna().to_dict() == REFUSED
    for name in FILES.keys() - REFUSED.keys():
        assert_matches_bundle(bundle, found.loc[name], FILES[name])
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 10


def use(chosen: place.Place) -> Callable[..., place.Place]:
    return lambda *_: chosen


def test_gives_the_numbers_of_ray(ray_cluster: None, registered: Config, folder: Path, tmp_path: Path) -> None:
    tables = {}
    with pytest.MonkeyPatch.context() as patch:
        for chosen in (place.ThisProcess(), place.OnRay(registered.cluster, Lake(registered.lake))):
            patch.setattr(score, "choose_place", use(chosen))
            out = Lake(str(tmp_path / chosen.name))
            facts = run_quietly(score.run, score_config(registered, corpus=str(folder), out=out.root)).facts
            assert facts["scored_by"] == chosen.name
            tables[chosen.name] = read_corpus_scores(out, str(folder)).drop(columns="scored_at").sort_index()
    here, ray = tables.values()
    pd.testing.assert_frame_equal(here, ray, check_exact=True)


def test_file_that_kills_its_decoder_is_rejected_and_the_rest_is_scored(
    registered: Config, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder process of one file dies of a signal each time, as damaged data may let it."""
    files = {f"{number}.png": image(number) for number in range(9)}
    write_files(tmp_path / "folder", files)
    ask = sandbox._Decoder.ask

    def ask_and_die(decoder: sandbox._Decoder, what: str, data: bytes) -> dict[str, Any]:
        if data == files["4.png"]:
            os.kill(decoder.process.pid, signal.SIGSEGV)
        return ask(decoder, what, data)

    monkeypatch.setattr(sandbox._Decoder, "ask", ask_and_die)
    monkeypatch.setattr(score, "choose_place", use(place.ThisProcess()))
    out = Lake(str(tmp_path / "out"))
    facts = run_quietly(score.run, score_config(registered, corpus=str(tmp_path / "folder"), out=out.root)).facts
    assert (facts["scored"], facts["quarantined"]) == (8, {"undecodable": 1})
    found = read_corpus_scores(out, str(tmp_path / "folder"))
    for name in files.keys() - {"4.png"}:
        assert_matches_bundle(bundle, found.loc[name], files[name])
    assert found.loc["4.png", "not_scored"] == "undecodable" and found["triage_score"].isna()["4.png"]


def test_leaves_no_decoder_behind(registered: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "folder", {f"{number}.png": image(number) for number in range(3)})
    monkeypatch.setattr(score, "choose_place", use(place.ThisProcess()))
    before = set(psutil.Process().children())
    run_quietly(score.run, score_config(registered, corpus=str(tmp_path / "folder"), out=str(tmp_path / "out")))
    left = [child for child in set(psutil.Process().children()) - before if child.is_running()]
    assert not [child for child in left if "chestai.imaging.decoder_process" in child.cmdline()]


@pytest.mark.parametrize(
    ("count", "address", "variable", "expected"),
    [
        (place.FEW, None, None, place.ThisProcess),
        (place.FEW + 1, None, None, place.OnRay),
        (1, "auto", None, place.OnRay),
        (1, None, "10.0.0.1:6379", place.OnRay),
    ],
)
def test_few_images_are_scored_here_unless_there_is_a_cluster(
    count: int, address: str | None, variable: str | None, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, lake = conf.load(["cluster=laptop"]).cluster.model_copy(update={"address": address}), Lake("/nowhere")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert type(place.choose_place(cluster, lake, count)) is expected
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    assert type(place.choose_place(cluster, lake, 1)) is place.OnRay
