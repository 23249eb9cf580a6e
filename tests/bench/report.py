"""How long `pipelines.evaluate` takes, start included, with NIH's labels and predictions for 22,433 test images.

    python -m tests.bench.report NIH_FOLDER

NIH_FOLDER holds NIH's label files; images are not needed. 1,000 resamples, all 14 findings. The second run adds
predictions for val, on which operating points and calibration are chosen. Target: under 180 s on 2 cores.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from chestai.lake.lake import Lake
from tests.bench.record import record
from tests.support.predictions import make_predictions

IMAGES = 22_433
LABELS = ("Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv")


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, lake = Path(folder) / "nih", Path(folder) / "lake"
        root.mkdir()
        for name in LABELS:
            (root / name).symlink_to(source.resolve() / name)
        _run("pipelines.etl", "source=nih", "source.images=optional", f"source.root={root}", f"lake={lake}")
        table = make_predictions(Lake(str(lake)))
        rows = []
        for what, chosen in (("test alone", _cut(table, "test", lake)), ("val and test", table)):
            chosen.to_csv(f"{folder}/theirs.csv", index=False)
            started = time.monotonic()
            _run("pipelines.evaluate", f"lake={lake}", f"predictions={folder}/theirs.csv", "predictions_prefix=p_")
            rows.append({"predictions": what, "images": len(chosen), "seconds": round(time.monotonic() - started, 1)})
    print(record("report", rows))


def _cut(table: pd.DataFrame, split: str, lake: Path) -> pd.DataFrame:
    """Return 22,433 predictions of a split."""
    store = Lake(str(lake))
    rows = store.read_labelled(store.find_snapshot(), ["split"]).to_pandas()
    names = rows.loc[rows["split"] == split, "image_id"] + ".png"
    return table[np.isin(table["Image Index"], names)].head(IMAGES)


def _run(module: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", module, *words], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
