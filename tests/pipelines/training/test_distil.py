"""Distillation: what the teacher says, what the student's bundle says of it, and how good the student is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import measure_performance
from chestai.model.bundle import Bundle, assemble
from chestai.model.registry import Registry
from pipelines import etl, phantom, train
from pipelines.data.pixel_cache import open_store, read_split_rows
from pipelines.training.teacher import add_lessons, pin_teacher
from tests.support.chain import SMALL, Chain, make_small_config, run_quietly


def version_of(summary: Any) -> str:
    return str(summary.facts["model"].split()[-1])


@pytest.mark.slow
def test_student_learns_the_teachers_logits_and_inherits_its_patients(finished: Chain) -> None:
    """The student is registered beside its teacher, so the champion is named and pinned."""
    words = ("network.backbone=resnet10t", "train.epochs=1", "distil.teacher=champion", "distil.share=0.9")
    registry = Registry(finished.config.tracking, finished.lake)
    teacher = version_of(finished.summaries["train"])
    champion = registry.champion()
    registry.promote(int(teacher))
    try:
        config = conf.load([*SMALL, f"lake={finished.config.lake}", *words])
        summary = run_quietly(train.run, config)
    finally:
        if champion is not None and champion != int(teacher):
            registry.promote(champion)
    snapshot = finished.lake.find_snapshot()
    pinned = config.model_copy(update={"distil": config.distil.model_copy(update={"teacher": teacher})})
    lessons = add_lessons(pinned, finished.lake, snapshot, None)
    assert lessons is not None
    findings = len(snapshot.vocabulary)
    rows = read_split_rows(finished.lake, snapshot, "train")
    store = open_store(finished.lake, snapshot, 64, "train", cached=True)
    few = np.arange(0, len(rows), 40)
    pixels, targets = store.read(few)
    original = registry.load(teacher).bundle
    np.testing.assert_allclose(lessons[few, findings:], original.predict(pixels).logits, atol=1e-3)
    np.testing.assert_array_equal(lessons[few, :findings], targets)

    student = registry.load(version_of(summary)).bundle
    assert student.card.provenance["teacher"] == {"teacher": teacher, "temperature": 2.0, "share": 0.9}
    assert {*original.seen_patients} < {*student.seen_patients} and len(student.seen_patients) == 2
    assert student.card.split_known and len(student.card.members) == 1
    run = registry.connect().get_run(summary.facts["run"])
    assert run.data.params["distil.teacher"] == teacher, "a resumed run must not follow the champion"


def test_teacher_must_exist_and_predict_the_same_findings(finished: Chain, tmp_path: Path) -> None:
    registry = Registry(finished.config.tracking, finished.lake)
    config = conf.load([*SMALL, f"lake={finished.config.lake}", "distil.teacher=99"])
    with pytest.raises(UserError, match="has no version 99"):
        run_quietly(train.run, config)
    with pytest.raises(UserError, match=r"distil\.teacher=99: teachers/.*-99 is missing"):
        add_lessons(config, finished.lake, finished.lake.find_snapshot(), None)
    assert pin_teacher(config, registry) is config
    alone = conf.load([*SMALL, f"lake={tmp_path / 'lake'}", "distil.teacher=champion"])
    with pytest.raises(UserError, match="has no champion"):
        pin_teacher(alone, Registry(alone.tracking, Lake(alone.lake)))


def measure(bundle: Bundle, lake: Lake, size: int) -> float:
    snapshot = lake.find_snapshot()
    store = open_store(lake, snapshot, size, "test", cached=True)
    pixels, targets = store.read(np.arange(snapshot.splits["test"]["files"]))
    logits = np.concatenate([bundle.predict(pixels[at : at + 64]).logits for at in range(0, len(pixels), 64)])
    predictions = Predictions.of(targets, logits, np.arange(len(targets)), NIH14)
    return measure_performance(predictions, Bootstrap(0)).macro_auroc.value


@pytest.mark.slow
def test_student_is_as_good_as_the_ensemble_that_taught_it(ray_cluster: None, tmp_path: Path) -> None:
    """On phantoms, within 0.005 of the teacher's macro-AUROC on test, as one DenseNet-121."""
    config = make_small_config(
        tmp_path, "phantom.count=1000", "train.epochs=6", "split.test_fraction=0.3", "split.by=hash"
    )
    chain = Chain(config)
    chain.run(("phantom", phantom.run), ("etl", etl.run))
    versions = []
    for seed in (17, 18):
        seeded = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
        versions.append(version_of(run_quietly(train.run, seeded)))
    taught = config.model_copy(
        update={
            "distil": config.distil.model_copy(update={"teacher": "+".join(versions), "share": 0.7}),
            "train": config.train.model_copy(update={"seed": 19, "epochs": 10}),
        }
    )
    student_version = version_of(run_quietly(train.run, taught))
    registry = Registry(config.tracking, chain.lake)
    teacher = assemble([registry.load(version).bundle for version in versions])
    student = registry.load(student_version).bundle
    assert [member.backbone for member in student.card.members] == ["densenet121"]
    theirs, ours = (measure(bundle, chain.lake, config.network.size) for bundle in (teacher, student))
    print(f"teacher {theirs:.4f}, student {ours:.4f}")
    assert theirs > 0.8 and ours >= theirs - 0.005
