"""Apply another policy for uncertain labels (`train.uncertainty`) to the train split.

Val and test keep the ETL's labels, so that models of different policies are measured by the same labels.
"""

from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.labels import balance
from chestai.labels.uncertainty import POLICY_TARGETS, resolve_policies
from chestai.lake.lake import Lake
from chestai.lake.schemas import LABELS
from chestai.lake.snapshot import Snapshot
from pipelines.data.pixel_cache import ImageStore, Pixels, Targets, read_split_rows, to_targets


def check_uncertain_labels(lake: Lake, snapshot: Snapshot, policy: str | None) -> None:
    """Check that the snapshot has the column that a policy needs.

    Raises:
        UserError: It was built before the column existed.
    """
    if policy is None:
        return
    fields = lake.open(LABELS, snapshot.versions[LABELS]).schema().fields
    if "uncertain" not in [field.name for field in fields]:
        raise UserError(
            f"train.uncertainty={policy}: snapshot {snapshot.snapshot_id} is of an older version and does not say "
            "which labels are uncertain: run the ETL again with force=true"
        )


def apply_policy(lake: Lake, snapshot: Snapshot, policy: str | None) -> Targets | None:
    """Return the targets of the train split's images under a policy for uncertain labels.

    The policy covers all of CheXpert's findings, whatever `source.uncertainty_of` said. Uncertain labels of findings
    that CheXpert lacks keep the ETL's targets.

    Args:
        policy: One of `chestai.labels.uncertainty.PRESETS`, or None for the ETL's policy.

    Returns:
        float32 (N, F) of 1, 0 and NaN = not known, the images in storage order; None without a policy.

    Raises:
        UserError: See `check_uncertain_labels`.
    """
    if policy is None:
        return None
    check_uncertain_labels(lake, snapshot, policy)
    rows, labels = read_split_rows(lake, snapshot, "train"), lake.read_gold(snapshot, LABELS, ["image_id", "uncertain"])
    uncertain = dict(zip(*(labels[name].to_pylist() for name in ("image_id", "uncertain")), strict=True))
    targets, index = to_targets(rows["targets"]), {name: at for at, name in enumerate(snapshot.vocabulary)}
    replacements = {finding: POLICY_TARGETS[chosen] for finding, chosen in resolve_policies(policy, {}).items()}
    for row, image_id in enumerate(rows["image_id"].to_pylist()):
        for finding in uncertain[image_id]:
            if finding in replacements:
                target = replacements[finding]
                targets[row, index[finding]] = np.nan if target is None else target
    return targets


def compute_pos_weight(snapshot: Snapshot, targets: Targets | None) -> tuple[float, ...]:
    """Return the weight of each finding's positives, from targets (N, F), or from the snapshot if they are None."""
    if targets is None:
        return snapshot.pos_weight
    positives, labelled = (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)
    return tuple(
        balance.compute_balance_weight(int(count), int(total)) for count, total in zip(positives, labelled, strict=True)
    )


def count_positives(snapshot: Snapshot, targets: Targets | None) -> tuple[int, ...]:
    """Return the train images with each finding, from targets (N, F), or from the snapshot if they are None."""
    if targets is None:
        return tuple(int(snapshot.splits["train"]["positives"][finding]) for finding in snapshot.vocabulary)
    return tuple(int(count) for count in (targets == 1).sum(axis=0))


def relabel_store(store: ImageStore, targets: Targets | None) -> ImageStore:
    """Return a store with other targets (N, F), in storage order; the store itself if they are None.

    They may be wider, (N, 2 F), with a teacher's logits behind them.
    """
    if targets is None:
        return store
    return RelabelledStore(store, ray.put(targets), store.size, store.shards, store.task_cpus, store.max_tasks)


@dataclass(frozen=True)
class RelabelledStore:
    """A store with other targets. Images that could not be read keep NaN targets."""

    store: ImageStore
    targets: ray.ObjectRef  # float32 (N, F), in storage order
    size: int
    shards: tuple[int, ...]
    task_cpus: float
    max_tasks: int | None

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        pixels, stored_targets = self.store.read(rows)
        targets = ray.get(self.targets)[rows]
        # Unread images are black too. NaN alone would not do: the ETL's policy may have dropped all labels of an image.
        unknown = np.flatnonzero(np.isnan(stored_targets).all(axis=1))
        unread = [image for image in unknown if not pixels[image].any()]
        targets[unread] = np.nan
        return pixels, targets
