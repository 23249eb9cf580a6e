"""The precision check: a precision below fp32 is used with a model only if it does no harm on val."""

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.metrics.ranking import auroc, mean_of_defined
from chestai.model.bundle import forward
from chestai.model.card import Card
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime, open_session
from chestai.model.runtimes.effect import RuntimeEffect
from pipelines.inference.engine import run_predictor
from pipelines.inference.labelled_predictions import load_usable_rows, match_predictions

IMAGES, SEED = 500, 17


class PrecisionPredictor:
    """Computes logits by torch in fp32, the reference, and by the runtime in question."""

    output = pa.struct({"reference": pa.list_(pa.float32()), "other": pa.list_(pa.float32())})

    def __init__(self, card: Card, network: Classifier | Ensemble, runtime: Runtime) -> None:
        self.reference = partial(forward, network)
        self.other = open_session(network, runtime, str(next(network.parameters()).device))

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        pairs = zip(self.reference(pixels).logits.tolist(), self.other(pixels).logits.tolist(), strict=True)
        return [{"reference": reference, "other": other} for reference, other in pairs]


def check_precision(config: Config, registry: Registry, model: RegisteredModel, screen: Screen) -> None:
    """Checks the precision of the config once per version; Ray must be connected.

    The result is stored as a tag of the registered version, where the endpoint finds it too.

    Raises:
        UserError: val's macro-AUROC falls by more than `runtime.max_auroc_drop`, or there is no readable val image.
    """
    settings = config.runtime
    if settings.precision == "fp32":
        return
    runtime = Runtime.of(settings)
    effect = registry.runtime(model.version, runtime)
    if effect is None:
        effect = _measure(config, registry.lake, model, screen)
        registry.note_runtime(model.version, runtime, effect)
    line = f"{settings.precision}: {effect}"
    if not effect.harmless(settings.max_auroc_drop):
        raise UserError(f"{line}; runtime.max_auroc_drop={settings.max_auroc_drop:g}: take runtime.precision=fp32")
    screen.say(line)


def _measure(config: Config, lake: Lake, model: RegisteredModel, screen: Screen) -> RuntimeEffect:
    bundle, precision = model.bundle, config.runtime.precision
    try:
        snapshot = lake.find_snapshot(bundle.card.snapshot)
        rows = load_usable_rows(lake, snapshot, {"val"})
    except UserError as error:
        raise UserError(f"runtime.precision={precision} is checked on val images first: {error}") from error
    chosen = np.random.default_rng(SEED).permutation(rows.num_rows)[:IMAGES]
    rows = rows.take(pa.array(np.sort(chosen)))
    predictor = partial(PrecisionPredictor, runtime=Runtime.of(config.runtime))
    images = rows.select(["image_id", "path"])
    outputs = run_predictor(bundle, images, predictor, config.score.batch_size, screen, "check").outputs
    if not outputs:
        raise UserError(
            f"runtime.precision={precision} is checked on val images first, and none can be read: take fp32"
        )
    logits = {
        name: np.array([output[name] for output in outputs.values()], np.float32) for name in ("reference", "other")
    }
    targets = match_predictions(rows, snapshot, bundle.card.findings, list(outputs), logits["other"], {}).targets
    reference, other = (bundle.calibration.apply(values) for values in logits.values())
    difference = np.abs(reference - other)
    return RuntimeEffect(
        images=len(outputs),
        mean=float(difference.mean()),
        most=float(difference.max()),
        reference_auroc=_macro_auroc(targets, reference),
        auroc=_macro_auroc(targets, other),
    )


def _macro_auroc(targets: NDArray[np.float32], probabilities: NDArray[np.float64]) -> float:
    each = [auroc(targets[:, column], probabilities[:, column]) for column in range(targets.shape[1])]
    return float(mean_of_defined(np.array([each]))[0])
