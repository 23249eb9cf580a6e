"""Another policy for uncertain labels while training (`train.uncertainty`), on the train split alone.

Val and test stay as the ETL took them, so that models of different policies are measured by the same labels.
"""

from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.labels import balance
from chestai.labels.uncertainty import TARGETS, policies
from chestai.lake.lake import Lake
from chestai.lake.schemas import LABELS
from chestai.lake.snapshot import Snapshot
from pipelines.data.pixel_cache import ImageStore, Pixels, Targets, as_targets, stored


def check_uncertain(lake: Lake, snapshot: Snapshot, policy: str | None) -> None:
    """Raise `UserError` where there is a policy, and the snapshot is older than the column that it needs."""
    fields = lake.open(LABELS, snapshot.versions[LABELS]).schema().fields if policy is not None else []
    if policy is not None and "uncertain" not in [field.name for field in fields]:
        raise UserError(
            f"train.uncertainty={policy}: snapshot {snapshot.snapshot_id} is of a former version and does not tell "
            "which labels are uncertain: run the ETL again with force=true"
        )


def train_targets(lake: Lake, snapshot: Snapshot, policy: str | None) -> Targets | None:
    """What the train split's images count as by a policy for their uncertain labels.

    The policy is for all of CheXpert's findings, whatever `source.uncertainty_of` said; uncertain labels of findings
    that CheXpert lacks stay as the ETL took them.

    Args:
        policy: one of `chestai.labels.uncertainty.PRESETS`, or None: no policy but the ETL's.

    Returns:
        float32 (N, F) of 1, 0 and NaN = not known, the images in storage order; None without a policy.

    Raises:
        UserError: see `check_uncertain`.
    """
    if policy is None:
        return None
    check_uncertain(lake, snapshot, policy)
    rows, labels = stored(lake, snapshot, "train"), lake.gold(snapshot, LABELS, ["image_id", "uncertain"])
    uncertain = dict(zip(*(labels[name].to_pylist() for name in ("image_id", "uncertain")), strict=True))
    targets, place = as_targets(rows["targets"]), {name: at for at, name in enumerate(snapshot.vocabulary)}
    counts = {finding: TARGETS[chosen] for finding, chosen in policies(policy, {}).items()}
    for row, image_id in enumerate(rows["image_id"].to_pylist()):
        for finding in uncertain[image_id]:
            if finding in counts:
                targets[row, place[finding]] = np.nan if counts[finding] is None else counts[finding]
    return targets


def pos_weight(snapshot: Snapshot, targets: Targets | None) -> tuple[float, ...]:
    """`chestai.labels.balance.pos_weight` of each finding, by targets (N, F), or by the ETL's where there are none."""
    if targets is None:
        return snapshot.pos_weight
    positives, known = (targets == 1).sum(axis=0), (~np.isnan(targets)).sum(axis=0)
    return tuple(balance.pos_weight(int(some), int(every)) for some, every in zip(positives, known, strict=True))


def with_label_policy(store: ImageStore, targets: Targets | None) -> ImageStore:
    """A split's store with other targets (N, F), in storage order; the store itself where there are none."""
    return store if targets is None else RelabelledStore(store, ray.put(targets))


@dataclass(frozen=True)
class RelabelledStore:
    """A store that gives other targets; an image that could not be read stays one of which nothing is known."""

    store: ImageStore
    targets: ray.ObjectRef  # float32 (N, F), in storage order

    @property
    def size(self) -> int:
        return self.store.size

    @property
    def shards(self) -> tuple[int, ...]:
        return self.store.shards

    @property
    def cpus(self) -> float:
        return self.store.cpus

    @property
    def at_once(self) -> int | None:
        return self.store.at_once

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        pixels, before = self.store.read(rows)
        targets = ray.get(self.targets)[rows]
        # Black too: all labels of an image may be uncertain, and not known to the ETL's policy.
        unread = [image for image in np.flatnonzero(np.isnan(before).all(axis=1)) if not pixels[image].any()]
        targets[unread] = np.nan
        return pixels, targets
