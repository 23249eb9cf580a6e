"""The precision check: a precision below fp32 is used with a model only if it does no harm on val."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.snapshot import Snapshot
from chestai.metrics.ranking import auroc, mean_of_defined
from chestai.model.bundle import Bundle, ForwardOutput, StoredNetwork, forward
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime, exports_folder, open_session
from chestai.model.runtimes.effect import RuntimeEffect
from chestai.model.runtimes.quantised_file import QuantisedFile
from pipelines.cluster import ray_cluster
from pipelines.inference.engine import run_predictor
from pipelines.inference.labelled_predictions import load_usable_rows, match_predictions

IMAGES, SEED = 500, 17


def measure_effect(
    config: Config, registry: Registry, model: RegisteredModel, runtime: Runtime, screen: Screen
) -> RuntimeEffect:
    """Measures a runtime in bf16, fp16 or int8, for which it quantises, on val images. Starts Ray if need be.

    Raises:
        UserError: There is no readable val image; or, for int8, no train image, or no NNCF.
    """
    with ray_cluster(config.cluster):
        return _measure(config, registry, model, runtime, screen)


def _measure(
    config: Config, registry: Registry, model: RegisteredModel, runtime: Runtime, screen: Screen
) -> RuntimeEffect:
    lake, bundle, batch_size = registry.lake, model.bundle, config.score.batch_size
    try:
        snapshot = lake.find_snapshot(bundle.card.snapshot)
        val, train = (load_usable_rows(lake, snapshot, {split}) for split in ("val", "train"))
    except UserError as error:
        raise UserError(f"runtime.precision={runtime.precision} is checked on val images first: {error}") from error
    quantised = None
    if runtime.precision == "int8":
        from chestai.model.runtimes.quantisation import quantise  # here: OpenVINO takes half a second to import

        images = _sample(train, config.runtime.calibration_images)
        content = quantise(bundle.stored, _read_pixels(bundle, images, batch_size, screen), exports_folder())
        quantised = QuantisedFile.write(lake, f"{model.name}-{model.version}.openvino.zip", content)
        runtime = replace(runtime, quantised=content)
    val = _sample(val, IMAGES)
    predictor = partial(ComparisonPredictor, runtime=runtime)
    outputs = run_predictor(bundle, val.select(["image_id", "path"]), predictor, batch_size, screen, "check").outputs
    if not outputs:
        raise UserError(
            f"runtime.precision={runtime.precision} is checked on val images first, and none can be read: take fp32"
        )
    return _compare(bundle, snapshot, val, outputs).model_copy(update={"quantised": quantised})


def _sample(rows: pa.Table, count: int) -> pa.Table:
    chosen = np.random.default_rng(SEED).permutation(rows.num_rows)[:count]
    return rows.take(pa.array(np.sort(chosen)))


def _read_pixels(bundle: Bundle, rows: pa.Table, batch_size: int, screen: Screen) -> NDArray[np.uint8]:
    """uint8 (N, S, S) of the readable images, in the order of their IDs."""
    images = rows.select(["image_id", "path"])
    outputs = run_predictor(bundle, images, PixelsPredictor, batch_size, screen, "calibrate").outputs
    if not outputs:
        raise UserError("runtime.precision=int8 needs train images, and none can be read: take fp32")
    pixels = np.frombuffer(b"".join(outputs[image_id] for image_id in sorted(outputs)), np.uint8)
    return pixels.reshape(-1, bundle.card.size, bundle.card.size)


class PixelsPredictor:
    """Returns the pixels of each image as they are, as bytes."""

    output = pa.binary()

    def __init__(self, stored: StoredNetwork) -> None:
        pass

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        return [image.tobytes() for image in pixels]


class ComparisonPredictor:
    """Computes logits by torch in fp32, the reference, and by a runtime, and the correlation of their evidence maps."""

    output = pa.struct({name: pa.list_(pa.float32()) for name in ("reference", "other", "maps")})

    def __init__(self, stored: StoredNetwork, runtime: Runtime) -> None:
        self.reference = partial(forward, stored.built)
        self.other = open_session(stored, runtime, str(stored.device))

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        reference, other = self.reference(pixels), self.other(pixels)
        values = zip(reference.logits, other.logits, _correlate_maps(reference, other), strict=True)
        return [{"reference": ours, "other": theirs, "maps": maps} for ours, theirs, maps in values]


def _correlate_maps(one: ForwardOutput, other: ForwardOutput) -> NDArray[np.float32]:
    """Pearson's correlation (N, F) of the evidence maps; NaN where one is constant."""
    ours, theirs = (
        maps - maps.mean(axis=(2, 3), keepdims=True)
        for maps in (np.asarray(output.evidence, np.float64) for output in (one, other))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.sqrt((ours**2).sum(axis=(2, 3)) * (theirs**2).sum(axis=(2, 3)))
        return ((ours * theirs).sum(axis=(2, 3)) / length).astype(np.float32)


def _compare(bundle: Bundle, snapshot: Snapshot, rows: pa.Table, outputs: dict[str, Any]) -> RuntimeEffect:
    card, triage = bundle.card, bundle.triage
    logits, others, maps = (
        np.array([output[name] for output in outputs.values()], np.float32) for name in ("reference", "other", "maps")
    )
    targets = match_predictions(rows, snapshot, card.findings, list(outputs), others, {}).targets
    reference, other = bundle.calibration.apply(logits), bundle.calibration.apply(others)
    points = np.array([np.nan if (point := card.thresholds[name]) is None else point for name in card.findings])
    calls, changed = reference >= points, (reference >= points) != (other >= points)
    buckets, moved = (triage.buckets(triage.score(values, card.findings)) for values in (reference, other))
    shown = maps[calls & np.isfinite(maps)]
    return RuntimeEffect(
        images=len(outputs),
        mean=float(np.abs(reference - other).mean()),
        most=float(np.abs(reference - other).max()),
        reference_auroc=_macro_auroc(targets, reference),
        auroc=_macro_auroc(targets, other),
        changed_buckets=float(np.mean([before != after for before, after in zip(buckets, moved, strict=True)])),
        changed_calls=float(changed[:, np.isfinite(points)].mean()) if np.isfinite(points).any() else 0.0,
        map_correlation=float(shown.mean()) if shown.size else float("nan"),
    )


def _macro_auroc(targets: NDArray[np.float32], probabilities: NDArray[np.float64]) -> float:
    each = [auroc(targets[:, column], probabilities[:, column]) for column in range(targets.shape[1])]
    return float(mean_of_defined(np.array([each]))[0])
