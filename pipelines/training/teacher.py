"""The teacher of a distillation: registered versions whose logits on the train split a student learns besides labels.

Hinton et al., "Distilling the Knowledge in a Neural Network", NIPS workshop 2014. The teacher looks at each train image
once, as it is; what it said is kept in the lake as `teachers/<snapshot>-<versions>`, for all epochs, trials and seeds.
So it may be as slow as it likes, and have another input size than the student.
"""

import numpy as np
import pyarrow as pa

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import Bundle, assemble
from chestai.model.registry import CHAMPION, Registry
from pipelines.data.pixel_cache import Targets, read_split_rows, to_targets
from pipelines.evaluation.leakage import check_leakage
from pipelines.inference.engine import infer_logits

SCHEMA = pa.schema({"image_id": pa.string(), "logits": pa.list_(pa.float32())})


def pin_teacher(config: Config, registry: Registry) -> Config:
    """The configuration with the teacher's version numbers: `champion` may be another one when the run is resumed.

    Raises:
        UserError: There is no champion.
    """
    which = config.distil.teacher
    if which is None or CHAMPION not in which.split("+"):
        return config
    champion = registry.champion()
    if champion is None:
        raise UserError(f"distil.teacher={which}: model {config.tracking.model} has no champion")
    versions = "+".join(str(champion) if part == CHAMPION else part for part in which.split("+"))
    return config.model_copy(update={"distil": config.distil.model_copy(update={"teacher": versions})})


def load_teacher(config: Config, registry: Registry, snapshot: Snapshot) -> Bundle:
    """The teacher as one bundle.

    Raises:
        UserError: There is no such version; its findings are not those of the snapshot; or it has seen patients whom
            the student is selected by or tested on.
    """
    which = str(config.distil.teacher)
    bundle = assemble([model.bundle for model in registry.load_all(which)])
    if bundle.card.findings != snapshot.vocabulary:
        raise UserError(
            f"distil.teacher={which} predicts {', '.join(bundle.card.findings)}, but snapshot {snapshot.snapshot_id} "
            f"has {', '.join(snapshot.vocabulary)}"
        )
    check_leakage(bundle, f"distil.teacher={which}", registry.lake, snapshot, ["val", "test"])
    return bundle


def ask_teacher(config: Config, registry: Registry, snapshot: Snapshot, screen: Screen) -> None:
    """Computes the teacher's logits of the train split, unless the lake has them. Ray must be connected.

    Raises:
        UserError: As of `load_teacher`.
    """
    if config.distil.teacher is None:
        return
    bundle = load_teacher(config, registry, snapshot)
    lake, table = registry.lake, _table(config, snapshot)
    if lake.version(table) is not None:
        return
    rows = read_split_rows(lake, snapshot, "train")
    found = infer_logits(bundle, rows.select(["image_id", "path"]), config.evaluate.batch_size, screen, "teacher")
    lake.write(table, pa.Table.from_pydict({"image_id": found.image_ids, "logits": found.logits.tolist()}, SCHEMA))


def add_lessons(config: Config, lake: Lake, snapshot: Snapshot, targets: Targets | None) -> Targets | None:
    """The targets of the train split with the teacher's logits beside them; without a teacher, as they are.

    Args:
        targets: float32 (N, F) in storage order; None for those of the snapshot.

    Returns:
        float32 (N, 2 F): targets, then logits, which are NaN of an image that the teacher could not read.

    Raises:
        UserError: The teacher was not asked.
    """
    if config.distil.teacher is None:
        return targets
    table = _table(config, snapshot)
    if lake.version(table) is None:
        raise UserError(
            f"distil.teacher={config.distil.teacher}: {table} is missing; `python -m pipelines.train` makes it"
        )
    rows, lessons = read_split_rows(lake, snapshot, "train"), lake.read(table)
    logits = dict(zip(lessons["image_id"].to_pylist(), to_targets(lessons["logits"]), strict=True))
    unread = np.full(len(snapshot.vocabulary), np.nan, np.float32)
    own = to_targets(rows["targets"]) if targets is None else targets
    taught = np.stack([logits.get(image_id, unread) for image_id in rows["image_id"].to_pylist()])
    return np.concatenate([own, taught], axis=1)


def _table(config: Config, snapshot: Snapshot) -> str:
    return f"teachers/{snapshot.snapshot_id}-{str(config.distil.teacher).replace('+', '-')}"
