"""Labels of another lake for the images of the evaluated split: `evaluate.labels=LAKE`."""

import numpy as np
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.evaluation.second_labels import SecondLabels, measure_second_labels
from chestai.lake.lake import Lake
from chestai.metrics.predictions import Predictions
from pipelines.data.pixel_cache import to_targets
from pipelines.evaluation.context import EvaluationRun


def measure_by_second_labels(run: EvaluationRun, predictions: Predictions, image_ids: list[str]) -> SecondLabels | None:
    """Measures a model by the labels of another lake where image IDs meet; None unless the configuration names one.

    The other lake needs no image files: an ETL with `source.images=optional` makes it of a label table alone. Its
    splits do not count.

    Args:
        predictions: Of the evaluated split, with the corpus's own labels.
        image_ids: Of the same images.

    Raises:
        UserError: The other lake has no build, or no image of the split.
    """
    uri = run.config.evaluate.labels
    if uri is None:
        return None
    lake = Lake(uri)
    snapshot = lake.find_snapshot()
    rows = lake.read_labelled(snapshot, [])
    rows = rows.filter(pc.is_in(rows["image_id"], pc.unique(np.array(image_ids))))
    if not rows.num_rows:
        raise UserError(f"evaluate.labels={uri} labels no image of the {run.split} split of {run.lake.root}")
    index_of = {image_id: at for at, image_id in enumerate(image_ids)}
    meeting = np.array([index_of[image_id] for image_id in rows["image_id"].to_pylist()], np.intp)
    labels = to_targets(rows["targets"])
    theirs = {finding: labels[:, column] for column, finding in enumerate(snapshot.vocabulary)}
    own = Predictions(
        predictions.targets[meeting],
        predictions.probabilities[meeting],
        predictions.patients[meeting],
        predictions.findings,
    )
    return measure_second_labels(snapshot.source, theirs, own, run.config.evaluate.bootstrap())
