"""A precision below fp32 is used for a model only where val says that it does no harm: measured once a version."""

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
from chestai.model.bundle import Card, forward
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime, open_session
from chestai.model.runtimes.effect import RuntimeEffect
from pipelines.inference.engine import run_predictor
from pipelines.inference.labelled_predictions import load_usable_rows, match_predictions

IMAGES, SEED = 500, 17


class PrecisionPredictor:
    """Logits in fp32 by torch, the reference, and by the runtime in question."""

    answer = pa.struct({"reference": pa.list_(pa.float32()), "other": pa.list_(pa.float32())})

    def __init__(self, card: Card, network: Classifier | Ensemble, runtime: Runtime) -> None:
        self.reference = partial(forward, network)
        self.other = open_session(network, runtime, str(next(network.parameters()).device))

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        pairs = zip(self.reference(pixels).logits.tolist(), self.other(pixels).logits.tolist(), strict=True)
        return [{"reference": reference, "other": other} for reference, other in pairs]


def check_precision(config: Config, registry: Registry, model: RegisteredModel, screen: Screen) -> None:
    """Let a run with the runtime of the config pass, or refuse it. Ray is connected.

    What was measured is a tag of the version in the registry, so that the endpoint knows it too.

    Raises:
        UserError: val's macro-AUROC falls by more than `runtime.max_auroc_drop`, or there is no val image to tell by.
    """
    wanted = config.runtime
    if wanted.precision == "fp32":
        return
    runtime = Runtime.of(wanted)
    effect = registry.runtime(model.version, runtime)
    if effect is None:
        effect = _measured(config, registry.lake, model, screen)
        registry.note_runtime(model.version, runtime, effect)
    told = f"{wanted.precision}: {effect}"
    if not effect.harmless(wanted.max_auroc_drop):
        raise UserError(f"{told}; runtime.max_auroc_drop={wanted.max_auroc_drop:g}: take runtime.precision=fp32")
    screen.say(told)


def _measured(config: Config, lake: Lake, model: RegisteredModel, screen: Screen) -> RuntimeEffect:
    bundle, precision = model.bundle, config.runtime.precision
    try:
        snapshot = lake.snapshot(bundle.card.snapshot)
        rows = load_usable_rows(lake, snapshot, {"val"})
    except UserError as error:
        raise UserError(f"runtime.precision={precision} is checked on val images first: {error}") from error
    chosen = np.random.default_rng(SEED).permutation(rows.num_rows)[:IMAGES]
    rows = rows.take(pa.array(np.sort(chosen)))
    work = partial(PrecisionPredictor, runtime=Runtime.of(config.runtime))
    found = run_predictor(
        bundle, rows.select(["image_id", "path"]), work, config.score.batch_size, screen, "check"
    ).answers
    if not found:
        raise UserError(
            f"runtime.precision={precision} is checked on val images first, and none can be read: take fp32"
        )
    logits = {name: np.array([one[name] for one in found.values()], np.float32) for name in ("reference", "other")}
    targets = match_predictions(rows, snapshot, bundle.card.findings, list(found), logits["other"], {}).targets
    reference, other = (bundle.calibration.apply(one) for one in logits.values())
    apart = np.abs(reference - other)
    return RuntimeEffect(
        images=len(found),
        mean=float(apart.mean()),
        most=float(apart.max()),
        reference_auroc=_macro(targets, reference),
        auroc=_macro(targets, other),
    )


def _macro(targets: NDArray[np.float32], probabilities: NDArray[np.float64]) -> float:
    each = [auroc(targets[:, column], probabilities[:, column]) for column in range(targets.shape[1])]
    return float(mean_of_defined(np.array([each]))[0])
