"""The precision check: a precision below fp32 is used with a model only if it does no harm on val."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.snapshot import Snapshot
from chestai.metrics.ranking import auroc, mean_of_defined
from chestai.model.bundle import Bundle, ForwardOutput, forward
from chestai.model.card import Card
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime, exports_folder, open_session
from chestai.model.runtimes.effect import RuntimeEffect
from chestai.model.runtimes.precision import list_candidates
from chestai.model.runtimes.quantised_file import QuantisedFile
from pipelines.inference.engine import run_predictor
from pipelines.inference.labelled_predictions import load_usable_rows, match_predictions

IMAGES, SEED = 500, 17


def choose_runtime(config: Config, registry: Registry, model: RegisteredModel, screen: Screen) -> Runtime:
    """Returns the runtime of the config in the precision that it names, or in the fastest that passes the check.

    Ray must be connected. A precision is checked once per version. The result is stored as a tag of the registered
    version, where the endpoint finds it too.

    Raises:
        UserError: The named precision breaks a limit of `runtime`, or there is no readable val image.
    """
    device = torch.device("cuda" if ray.cluster_resources().get("GPU", 0) else "cpu")
    *others, last = list_candidates(config.runtime, device)
    for precision in others:
        try:
            return _check(config, registry, model, Runtime.of(config.runtime, precision), screen)
        except UserError as error:
            screen.say(str(error))
    return _check(config, registry, model, Runtime.of(config.runtime, last), screen)


def _check(config: Config, registry: Registry, model: RegisteredModel, runtime: Runtime, screen: Screen) -> Runtime:
    """Returns the runtime, with the quantised network if it needs one. Raises as `choose_runtime`."""
    if runtime.precision == "fp32":
        return runtime
    effect = registry.runtime(model.version, runtime)
    if effect is None:
        effect = _measure(config, registry, model, runtime, screen)
        registry.note_runtime(model.version, runtime, effect)
    line, fault = f"{runtime.precision}: {effect}", effect.find_fault(config.runtime)
    if fault is not None:
        raise UserError(f"{line}; {fault}: take runtime.precision=fp32")
    screen.say(line)
    return effect.complete(runtime, registry.lake)


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
        content = quantise(bundle.network, _read_pixels(bundle, images, batch_size, screen), exports_folder())
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

    def __init__(self, card: Card, network: Classifier | Ensemble) -> None:
        pass

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        return [image.tobytes() for image in pixels]


class ComparisonPredictor:
    """Computes logits by torch in fp32, the reference, and by a runtime, and the correlation of their evidence maps."""

    output = pa.struct({name: pa.list_(pa.float32()) for name in ("reference", "other", "maps")})

    def __init__(self, card: Card, network: Classifier | Ensemble, runtime: Runtime) -> None:
        self.reference = partial(forward, network)
        self.other = open_session(network, runtime, str(next(network.parameters()).device))

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
