"""Made-up predictions as a CSV from another system would hold them."""

import numpy as np
import pandas as pd

from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake


def make_predictions(lake: Lake) -> pd.DataFrame:
    """Probabilities for all val and test images, better than chance, under NIH's own names."""
    rows = lake.read_labelled(lake.find_snapshot(), ["split"]).to_pandas()
    rows = rows[rows["split"].isin(["test", "val"])].sample(frac=1, random_state=0)
    truth = np.stack([np.array(targets) for targets in rows["targets"]])
    noise = np.random.default_rng(0).normal(size=truth.shape)
    table = pd.DataFrame(1 / (1 + np.exp(-(noise + 1.2 * truth - 2))), columns=[f"p_{name}" for name in NIH14])
    table.insert(0, "Image Index", (rows["image_id"] + ".png").to_numpy())
    return table
