"""Another policy for uncertain labels: on the train split alone, in everything that uses its targets."""

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint
from rich.console import Console

from chestai.cli.console import Screen
from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.labels.uncertainty import PRESETS, resolve_policies
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, LABELS, SCHEMAS
from chestai.lake.snapshot import Snapshot
from chestai.model.registry import Registry
from pipelines import train
from pipelines.data.label_policy import RelabelledStore, apply_policy, compute_pos_weight, relabel_store
from pipelines.data.loader import stream_epoch
from pipelines.data.pixel_cache import (
    FileStore,
    ImageStore,
    Pixels,
    ShardStore,
    Targets,
    build_pixel_cache,
    open_store,
    read_split_rows,
    to_targets,
)
from pipelines.data.sampler import compute_repeat_factors, make_epoch_order
from pipelines.training import register
from pipelines.training.build import build_network
from pipelines.training.loop import STATE_FILE
from pipelines.training.trainer import build_trainer
from tests.support.chain import run_quietly
from tests.support.corpus import encode_png, make_noise

SIZE = 64
UNSURE = -1.0
VOCABULARY = ("Atelectasis", "Cardiomegaly", "Effusion", "Edema", "Hernia", "Fracture")  # CheXpert has no Hernia
COUNTS = {"train": 300, "val": 40, "test": 8}
UNREAD = "train0007"


@dataclass(frozen=True)
class Corpus:
    """A lake whose ETL took uncertain labels as 1, and its source's labels by image: 1, 0, UNSURE and NaN."""

    lake: Lake
    snapshot: Snapshot
    labels: dict[str, NDArray[np.float32]]

    def expected_targets(self, image_id: str, policy: str | None) -> list[float]:
        """Return the targets of an image, label by label."""
        replacements = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}
        chosen = resolve_policies(policy, {}) if policy else {}
        targets = []
        for finding, label in zip(VOCABULARY, self.labels[image_id], strict=True):
            targets.append(replacements[chosen.get(finding, "ones")] if label == UNSURE else float(label))
        return targets

    def train_ids(self) -> list[str]:
        """Return the IDs of the train split in storage order."""
        ids: list[str] = read_split_rows(self.lake, self.snapshot, "train")["image_id"].to_pylist()
        return ids


@pytest.fixture(scope="module")
def corpus(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("relabelling")
    lake, draws = Lake(str(folder / "lake")), np.random.default_rng(5)
    images: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    source_labels = {}
    for split, count in COUNTS.items():
        for number in range(count):
            image_id, path = f"{split}{number:04}", folder / f"{split}{number:04}.png"
            path.write_bytes(encode_png(make_noise(len(images), SIZE, SIZE)))
            about = {"source": "x", "patient_id": image_id, "view": "AP", "split": split}
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            images.append({"image_id": image_id, "path": str(path), "sha256": digest, **about})
            row = draws.choice([1.0, 0.0, UNSURE, np.nan], len(VOCABULARY), p=[0.2, 0.5, 0.2, 0.1]).astype(np.float32)
            row[-1] = 0.0 if row[-1] == 1 else row[-1]  # no fracture is certain
            source_labels[image_id] = row
            uncertain = [name for name, value in zip(VOCABULARY, row, strict=True) if value == UNSURE]
            targets = [None if np.isnan(value) else abs(float(value)) for value in row]
            labels.append({"image_id": image_id, "findings": [], "targets": targets, "uncertain": uncertain})
    versions = {
        table: lake.write(table, pa.Table.from_pylist(rows, schema=SCHEMAS[table]))
        for table, rows in ((IMAGES, images), (LABELS, labels))
    }
    snapshot = Snapshot(
        snapshot_id="relabelled",
        built_at=now(),
        source="x",
        fingerprint="",
        vocabulary=VOCABULARY,
        versions=versions,
        accounting={},
        splits={split: {"files": count} for split, count in COUNTS.items()},
        pos_weight=tuple(1.5 + at for at in range(len(VOCABULARY))),
        cooccurrence=((0,) * len(VOCABULARY),) * len(VOCABULARY),
        pixel_mean=0.5,
        pixel_std=0.25,
        synthetic=True,
    )
    lake.publish(snapshot)
    (folder / f"{UNREAD}.png").unlink()
    build_pixel_cache(lake, snapshot, SIZE, Screen(Console(file=io.StringIO())))
    return Corpus(lake, snapshot, source_labels)


def make_config(corpus: Corpus, *more: str) -> Config:
    small = (f"network.size={SIZE}", "network.backbone=resnet10t", "train.batch_size=16")
    return conf.load([*small, f"lake={corpus.lake.root}", "tracking.uri=sqlite://", *more])


def equal(actual: Any, expected: Any) -> bool:
    return np.array_equal(np.array(actual, np.float32), np.array(expected, np.float32), equal_nan=True)


@pytest.mark.parametrize("policy", [*PRESETS, None])
def test_policy_changes_uncertain_labels_only(corpus: Corpus, policy: str | None) -> None:
    targets = apply_policy(corpus.lake, corpus.snapshot, policy)
    expected = [corpus.expected_targets(image_id, policy) for image_id in corpus.train_ids()]
    if policy is None:
        rows = read_split_rows(corpus.lake, corpus.snapshot, "train")
        assert targets is None and equal(to_targets(rows["targets"]), expected)
        return
    assert targets is not None and targets.dtype == np.float32 and equal(targets, expected)
    assert np.isnan(targets[:, VOCABULARY.index("Hernia")]).sum() == sum(
        np.isnan(corpus.labels[image_id][VOCABULARY.index("Hernia")]) for image_id in corpus.train_ids()
    ), "findings that CheXpert lacks keep the ETL's targets"


@pytest.mark.parametrize("policy", ["ignore", "zeros", "irvin2019"])
@pytest.mark.parametrize("cached", [True, False])
def test_epoch_has_the_targets_of_the_policy(corpus: Corpus, policy: str, cached: bool) -> None:
    plain = open_store(corpus.lake, corpus.snapshot, SIZE, "train", cached)
    store = relabel_store(plain, apply_policy(corpus.lake, corpus.snapshot, policy))
    for name in ("size", "shards", "task_cpus", "max_tasks"):
        assert getattr(store, name) == getattr(plain, name)
    number_of = {make_noise(number, SIZE, SIZE).tobytes(): number for number in range(COUNTS["train"])}
    order = make_epoch_order(store.shards, SIZE, 24, 1, seed=7, epoch=0)
    batches = list(stream_epoch(store, order, 0, 1))
    pixels = np.concatenate([batch.pixels for batch in batches])
    targets = np.concatenate([batch.targets for batch in batches])
    assert len(pixels) == COUNTS["train"] and targets.dtype == np.float32
    numbers = set()
    for image, known in zip(pixels, targets, strict=True):
        number = number_of.get(image.tobytes())
        if number is None:
            assert not image.any() and np.isnan(known).all(), "the image that could not be read"
        else:
            assert equal(known, corpus.expected_targets(f"train{number:04}", policy))
        numbers.add(number)
    assert numbers == {*number_of.values(), None} - {int(UNREAD[-4:])}


@dataclass(frozen=True)
class FourImages:
    """A store of two findings: known, not known at all, known and black, unread."""

    size: int = 2
    shards: tuple[int, ...] = (4,)
    task_cpus: float = 1.0
    max_tasks: int | None = None

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        light = np.array([9, 9, 0, 0], np.uint8)[:, None, None] * np.ones((2, 2), np.uint8)
        targets = np.array([[1, 0], [np.nan, np.nan], [0, np.nan], [np.nan, np.nan]], np.float32)
        return light[rows], targets[rows]


def test_only_unread_images_stay_unknown(ray_cluster: None) -> None:
    new = np.array([[1, 1], [1, 0], [0, 1], [1, 1]], np.float32)
    rows = np.array([3, 1, 0, 2, 1])
    pixels, targets = relabel_store(FourImages(), new).read(rows)
    assert equal(targets, np.where((rows == 3)[:, None], np.nan, new[rows])) and targets.dtype == np.float32
    assert np.array_equal(pixels, FourImages().read(rows)[0])
    assert equal(FourImages().read(np.arange(4))[1][1:2], [[np.nan] * 2])
    assert equal(new, [[1, 1], [1, 0], [0, 1], [1, 1]]), "the given targets are not changed"
    store = FourImages()
    assert relabel_store(store, None) is store


def count_weights(corpus: Corpus, policy: str) -> list[float]:
    """Count negatives / positives of each finding."""
    rows = [corpus.expected_targets(image_id, policy) for image_id in corpus.train_ids()]
    counts = [(sum(row[at] == 1 for row in rows), sum(row[at] == 0 for row in rows)) for at in range(len(VOCABULARY))]
    return [negatives / positives if positives and negatives else 1.0 for positives, negatives in counts]


def test_pos_weight_is_that_of_the_targets_trained_on(corpus: Corpus) -> None:
    found = {
        name: compute_pos_weight(corpus.snapshot, apply_policy(corpus.lake, corpus.snapshot, name)) for name in PRESETS
    }
    for name, balance in found.items():
        assert list(balance) == count_weights(corpus, name)
    assert found["ones"] != found["zeros"] != found["ignore"]
    assert found["zeros"][VOCABULARY.index("Fracture")] == 1.0, "no positive is left"
    assert compute_pos_weight(corpus.snapshot, None) == corpus.snapshot.pos_weight


@pytest.mark.parametrize("cached", [True, False])
def test_training_job_uses_the_targets_of_the_policy(corpus: Corpus, cached: bool) -> None:
    def job(*words: str) -> dict[str, Any]:
        config = make_config(corpus, f"feed.cache={'pixels' if cached else 'none'}", "train.balance=0.4", *words)
        trainer: Any = build_trainer(config, Registry(config.tracking, corpus.lake), corpus.snapshot, "run")
        found: dict[str, Any] = trainer.train_loop_config
        return found

    kind: type[ImageStore] = ShardStore if cached else FileStore
    plain, zeros = job(), job("train.uncertainty=zeros")
    expected = np.array([corpus.expected_targets(image_id, "zeros") for image_id in corpus.train_ids()], np.float32)
    assert (
        zeros["pos_weight"] == count_weights(corpus, "zeros") != plain["pos_weight"] == list(corpus.snapshot.pos_weight)
    )
    assert np.array_equal(ray.get(zeros["repeats"]), compute_repeat_factors(expected, 0.4))
    assert not np.array_equal(ray.get(plain["repeats"]), ray.get(zeros["repeats"]))
    assert isinstance(zeros["train"], RelabelledStore) and equal(ray.get(zeros["train"].targets), expected)
    assert {type(store) for store in (plain["train"], plain["val"], zeros["val"], zeros["train"].store)} == {kind}
    assert equal(zeros["val"].read(np.arange(40))[1], plain["val"].read(np.arange(40))[1])


def test_bundle_undoes_the_weights_of_the_loss(corpus: Corpus, tmp_path: Path) -> None:
    """The calibration prior of a finding that val cannot tell about."""
    config = make_config(corpus, "train.uncertainty=ignore", "loss.max_pos_weight=3")
    network = build_network(config, corpus.snapshot)
    logits = torch.randn((40, len(VOCABULARY)), generator=torch.manual_seed(0))
    val = {"logits": logits, "targets": torch.zeros(logits.shape)}
    torch.save({"best": network.state_dict(), "val": val}, tmp_path / STATE_FILE)
    metrics = {"epoch": 1, "selection": 0.5, "val_macro_auroc": 0.5, "val_loss": 1.0}
    result: Any = SimpleNamespace(best_checkpoints=[(Checkpoint.from_directory(str(tmp_path)), metrics)])
    kept: list[Any] = []
    registry: Any = SimpleNamespace(lake=corpus.lake, register=lambda bundle, *about: kept.append(bundle))
    register.register_best(config, registry, corpus.snapshot, result, "run")
    (bundle,) = kept
    expected = [min(weight, 3.0) for weight in count_weights(corpus, "ignore")]
    assert bundle.card.provenance["pos_weight"] == expected and len({*expected}) > 3
    np.testing.assert_allclose(bundle.card.calibration["intercept"], -np.log(expected), atol=1e-6)


def test_snapshot_without_uncertain_column_is_refused_before_training(corpus: Corpus, tmp_path: Path) -> None:
    lake, labels = Lake(str(tmp_path / "lake")), corpus.lake.read_gold(corpus.snapshot, LABELS)
    images = lake.write(IMAGES, corpus.lake.read_gold(corpus.snapshot, IMAGES))
    version = lake.write(LABELS, labels.drop(["uncertain"]))
    snapshot = replace(corpus.snapshot, snapshot_id="old", versions={IMAGES: images, LABELS: version})
    lake.publish(snapshot)
    triage = "triage.weights={Edema: 1.0, Effusion: 0.9}"
    config = make_config(replace(corpus, lake=lake), "train.uncertainty=ones", triage)
    for attempt in (lambda: run_quietly(train.run, config), lambda: apply_policy(lake, snapshot, "ones")):
        with pytest.raises(UserError, match=r"train\.uncertainty=ones: snapshot old .* with force=true") as raised:
            attempt()
        assert "\n" not in str(raised.value)
    assert apply_policy(lake, snapshot, None) is None


def test_snapshot_without_uncertain_labels_keeps_its_targets(corpus: Corpus, tmp_path: Path) -> None:
    lake, labels = Lake(str(tmp_path / "lake")), corpus.lake.read_gold(corpus.snapshot, LABELS)
    images = lake.write(IMAGES, corpus.lake.read_gold(corpus.snapshot, IMAGES))
    none = pa.array([[]] * labels.num_rows, pa.list_(pa.string()))
    version = lake.write(LABELS, labels.drop(["uncertain"]).append_column("uncertain", none))
    snapshot = replace(corpus.snapshot, versions={IMAGES: images, LABELS: version})
    assert equal(apply_policy(lake, snapshot, "zeros"), to_targets(read_split_rows(lake, snapshot, "train")["targets"]))


def test_recipe_without_a_policy_keeps_its_old_id(corpus: Corpus) -> None:
    config = make_config(corpus)
    plain = config.plain()
    younger = ("uncertainty", "layer_decay", "seeds", "frozen", "corpora", "operations", "magnitude")
    dropped, parts = (*younger, "resume", "max_failures", "checkpoint_minutes"), {}
    for section in ("network", "loss", "augment", "train"):
        parts[section] = {name: value for name, value in plain[section].items() if name not in dropped}
    old_recipe = json.dumps({"snapshot": corpus.snapshot.snapshot_id, **parts}, sort_keys=True)
    assert train.compute_recipe_id(config, corpus.snapshot) == hashlib.sha256(old_recipe.encode()).hexdigest()[:12]
    chosen = {
        train.compute_recipe_id(make_config(corpus, f"train.uncertainty={name}"), corpus.snapshot) for name in PRESETS
    }
    assert len(chosen | {train.compute_recipe_id(config, corpus.snapshot)}) == len(PRESETS) + 1


def test_config_from_before_the_policy_is_still_read(corpus: Corpus) -> None:
    plain = make_config(corpus).plain()
    del plain["train"]["uncertainty"]
    assert conf.validate(plain).train.uncertainty is None
