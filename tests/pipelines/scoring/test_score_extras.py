"""Optional outputs of scoring (heatmaps, embeddings, exports), the precision check, and the OOD gate."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.imaging.heatmap import heatmap, is_shown
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, LABELS
from chestai.model.bundle import Bundle, forward
from chestai.model.registry import Registry
from chestai.model.runtimes import Runtime
from chestai.monitoring.ood_detector import OUT_OF_DISTRIBUTION
from chestai.results.report_text.parser import parse
from pipelines import score
from pipelines.scoring import corpus
from pipelines.scoring.gallery_page import render_gallery_page
from pipelines.scoring.ledger import Ledger, read_scores
from pipelines.scoring.runtime_choice import choose_runtime
from pipelines.training.register import register
from tests.pipelines.scoring.folder import FILES, REFUSED, score_config, write_files
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import make_gated_bundle
from tests.support.chain import Chain, run_quietly
from tests.support.foreign_images import make_foreign_images
from tests.support.models import image

READABLE = [name for name in FILES if name not in REFUSED]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    write_files(root, FILES)
    return root


def read_content_rows(out: Lake) -> dict[str, dict[str, Any]]:
    """Map each scored file to the ledger's row of its content."""
    contents = {row["sha256"]: row for row in out.read(Ledger(out, 1).contents).to_pylist()}
    files = out.read(Ledger(out, 1).files).to_pylist()
    return {file["image_id"]: contents[file["sha256"]] for file in files if file["reason"] is None}


@pytest.mark.usefixtures("in_process")
def test_heatmaps_and_embeddings_are_added_to_scored_images(
    registered: Config, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    out = Lake(str(tmp_path / "out"))
    config = score_config(registered, corpus=str(folder), out=out.root)
    assert run_quietly(score.run, config).facts["scored"] == 6
    plain = read_content_rows(out)
    assert all(row["heatmaps"] is row["embedding"] is None and not row["has_heatmaps"] for row in plain.values())
    assert {row["runtime"] for row in plain.values()} == {"openvino fp32"}

    more = score_config(config, corpus=str(folder), out=out.root, heatmaps=True, embeddings=True)
    write_files(folder, {"new.png": image(21)})
    facts = run_quietly(score.run, more).facts
    assert (facts["scored"], facts["already"]) == (7, 0), "every content lacked the requested outputs"
    assert run_quietly(score.run, more).rows == 0
    assert run_quietly(score.run, score_config(config, corpus=str(folder), out=out.root, heatmaps=True)).rows == 0
    found = read_content_rows(out)
    assert len(found) == 7 and out.read(Ledger(out, 1).contents).num_rows == 6
    mapped = 0
    for name in READABLE:
        grey = preprocess.decode(FILES[name])
        expected = forward(bundle.network, preprocess.resize(grey, bundle.card.size)[None])
        np.testing.assert_allclose(found[name]["embedding"], expected.embedding[0], atol=1e-4)
        probabilities = dict(zip(bundle.card.findings, bundle.calibration.apply(expected.logits)[0], strict=True))
        thresholds = bundle.card.thresholds
        above = [finding for finding, value in probabilities.items() if is_shown(value, thresholds[finding])]
        assert [stored["finding"] for stored in found[name]["heatmaps"]] == above
        for stored in found[name]["heatmaps"]:
            plane = np.frombuffer(stored["evidence"], np.float32).reshape(stored["rows"], stored["columns"])
            evidence = expected.evidence[0, bundle.card.findings.index(stored["finding"])]
            np.testing.assert_allclose(heatmap(plane, *grey.shape), heatmap(evidence, *grey.shape), atol=1e-3)
            mapped += 1
        assert found[name]["triage_score"] == pytest.approx(plain[name]["triage_score"], abs=1e-6)
    assert mapped, "no finding reached its operating point, so no heatmap was compared"


def test_writes_csv_parquet_worklist_and_gallery(
    ray_cluster: None, registered: Config, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    """On Ray. CSV, Parquet, worklist and gallery agree, most urgent first."""
    names = ("csv", "parquet", "worklist", "gallery", "report_text")
    paths = {name: tmp_path / "files" / f"scores.{name}" for name in names}
    requested: dict[str, Any] = {name: str(path) for name, path in paths.items()}
    config = score_config(registered, corpus=str(folder), out=str(tmp_path / "out"), gallery_images=4, **requested)
    facts = run_quietly(score.run, config).facts
    assert facts["written"] == ", ".join(requested.values())

    table, flat = pd.read_parquet(paths["parquet"]), pd.read_csv(paths["csv"])
    assert list(table.columns) == list(flat.columns) and list(table["image_id"]) == list(flat["image_id"])
    with paths["worklist"].open(newline="") as file:
        queue = list(csv.DictReader(file))
    assert [row["image_id"] for row in queue] == list(table["image_id"])
    assert [row["rank"] for row in queue] == [*"123456", "", "", "", ""]
    assert {row["image_id"]: row["not_scored"] for row in queue[6:]} == REFUSED
    first, same = queue[0], table.iloc[0]
    probabilities = {finding: same[f"prob_{finding}"] for finding in bundle.card.findings}
    drivers = bundle.triage.find_drivers(list(probabilities.values()), bundle.card.findings)
    assert first["driven_by"] == ", ".join(f"{finding} {weighted:.2f}" for finding, weighted in drivers)
    thresholds = bundle.card.thresholds
    reached = [finding for finding, value in probabilities.items() if is_shown(value, thresholds[finding])]
    assert first["findings"] == ", ".join(reached) and any(row["findings"] for row in queue)

    with paths["report_text"].open(newline="") as file:
        drafts = list(csv.DictReader(file))
    assert [row["image_id"] for row in drafts] == list(table["image_id"])
    assert [(row["text"], row["not_scored"]) for row in drafts[6:]] == [("", row["not_scored"]) for row in queue[6:]]
    assert {row["language"] for row in drafts} == {"en"}
    for row, told in zip(drafts[:6], queue, strict=False):
        assert row["text"].startswith("Draft by research software, not a diagnosis.\n")
        said = {name for name, state in parse(row["text"], "en").items() if state == "present"}
        assert said <= {*told["findings"].split(", ")}

    page = paths["gallery"].read_text()
    shown_ids = re.findall(r'id="case-\d+-name">\d+\. <bdi>([^<]+)</bdi>', page)
    assert shown_ids == list(table["image_id"][:4])
    assert "http://" not in page.replace("http://www.w3.org", "") and "not scored" in page

    found = corpus.list_folder_corpus(str(folder))
    (folder / shown_ids[0]).unlink()  # after it was scored
    kept = read_scores(Lake(str(tmp_path / "out")), 1)
    registry = Registry(registered.tracking, Lake(registered.lake))
    html = render_gallery_page(kept, 4, registry.load("1"), found)
    assert "no longer readable" in html and f"<bdi>{shown_ids[0]}</bdi>" not in html


def make_labelled_lake(built: Chain, registered: Config, tmp_path: Path) -> Config:
    """Make a lake whose only snapshot is the one that the registered model names, with the images of `built`."""
    lake = Lake(str(tmp_path / "lake"))
    old = built.lake.find_snapshot()
    images = built.lake.read_gold(old, IMAGES)
    rows = images.set_column(images.column_names.index("split"), "split", pa.array(["val"] * images.num_rows))
    versions = {IMAGES: lake.write(IMAGES, rows), LABELS: lake.write(LABELS, built.lake.read_gold(old, LABELS))}
    snapshot = Registry(registered.tracking, Lake(registered.lake)).load("1").bundle.card.snapshot
    lake.publish(replace(old, versions=versions, snapshot_id=snapshot))
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    return conf.load([f"lake={lake.root}", f"tracking.uri={uri}", "score.batch_size=16", "runtime.precision=bf16"])


@pytest.mark.usefixtures("in_process")
def test_bf16_is_used_when_precision_check_passes(
    built: Chain, registered: Config, screen: Screen, tmp_path: Path
) -> None:
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("no bf16 on this CPU")
    config = make_labelled_lake(built, registered, tmp_path)
    registry = Registry(config.tracking, Lake(config.lake))
    model = registry.load("1")
    lenient = config.model_copy(update={"runtime": config.runtime.model_copy(update={"max_auroc_drop": 0.9})})
    choose_runtime(lenient, registry, model, screen, "cpu")
    assert re.search(r"bf16: on \d+ val images macro-AUROC 0\.\d+", screen.console.file.getvalue())  # type: ignore[attr-defined]
    bf16 = Runtime("auto", "bf16")
    effect = registry.runtime(1, bf16)
    assert effect is not None and 0 < effect.mean <= effect.most < 0.1

    registry.note_runtime(1, bf16, effect.model_copy(update={"auroc": effect.reference_auroc - 0.01}))
    with pytest.raises(UserError, match=r"max_auroc_drop=0\.002: take runtime.precision=fp32"):
        choose_runtime(config, registry, model, screen, "cpu")  # by the stored effect, without a new measurement
    registry.note_runtime(1, bf16, effect.model_copy(update={"auroc": float("nan")}))
    with pytest.raises(UserError, match=r"take runtime\.precision=fp32"):
        choose_runtime(config, registry, model, screen, "cpu")


def test_fp16_is_refused_without_val_images(
    registered: Config, ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    config = score_config(registered, corpus=str(folder), out=str(tmp_path / "out"))
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"precision": "fp16"})})
    with pytest.raises(UserError, match=r"runtime.precision=fp16 is checked on val images first: "):
        run_quietly(score.run, config)


@pytest.mark.usefixtures("in_process")
def test_rejects_images_that_are_no_radiographs(tmp_path: Path) -> None:
    """As the endpoint does. A run without the gate scores them, and later runs keep those scores."""
    lake, root = Lake(str(tmp_path / "lake")), tmp_path / "folder"
    registry = Registry(conf.load().tracking, lake)
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(make_gated_bundle(), registry))
    strange = make_foreign_images("white_noise", np.stack([preprocess.resize(film, 96) for film in make_films()[:1]]))[
        0
    ]
    write_files(root, {"film.png": encode_image(make_films()[0]), "noise.png": encode_image(strange)})
    config = score_config(conf.load([f"lake={lake.root}"]), corpus=str(root), out=str(tmp_path / "out"))
    assert run_quietly(score.run, config).facts["quarantined"] == {OUT_OF_DISTRIBUTION: 1}
    (refused,) = (
        Lake(str(tmp_path / "out"))
        .read(Ledger(lake, 1).files, where=pc.field("reason") == OUT_OF_DISTRIBUTION)
        .to_pylist()
    )
    assert refused["image_id"] == "noise.png" and "limit" in refused["detail"] and refused["sha256"]
    assert run_quietly(score.run, config).rows == 0
    open_ = score_config(config, corpus=str(root), out=str(tmp_path / "out"), gate=False)
    facts = run_quietly(score.run, open_).facts
    assert (facts["scored"], facts["already"], facts["quarantined"]) == (1, 1, {})
    assert run_quietly(score.run, config).rows == 0


@pytest.mark.slow
def test_torch_and_openvino_give_equal_scores(
    ray_cluster: None, registered: Config, folder: Path, tmp_path: Path
) -> None:
    found = {}
    for engine in ("torch", "openvino"):
        config = score_config(registered, corpus=str(folder), out=str(tmp_path / engine))
        config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"engine": engine})})
        run_quietly(score.run, config)
        found[engine] = read_scores(Lake(str(tmp_path / engine)), 1).sort_by("image_id")
        contents = Lake(str(tmp_path / engine)).read("scores/1")
        assert pc.unique(contents["runtime"]).to_pylist() == [f"{engine} fp32"]
    for name in found["torch"].column_names:
        if name.startswith("prob_"):
            ours, theirs = (found[engine][name].to_numpy() for engine in ("torch", "openvino"))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
