"""The same training with several seeds: how much of a figure is chance."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from chestai.cli.console import Screen
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import Registry


def train_seeds(config: Config, screen: Screen, train: Callable[[Config, Screen], Summary]) -> Summary:
    """Trains with `train.seeds` seeds from `train.seed` on, one after the other, and sums them up.

    Each is a run and a version of its own, and a seed that is already trained is not trained again. Their val figures
    are those of each run's best epoch, which was chosen on val.

    Args:
        train: The training stage.

    Raises:
        UserError: A single run is to be resumed; and as of the stage.
    """
    settings = config.train
    if settings.resume is not None:
        raise UserError(
            f"train.resume={settings.resume} is one run: leave out train.seeds, and run the others after it"
        )
    registry, found, seconds, images = Registry(config.tracking, Lake(config.lake)), [], 0.0, 0
    for seed in range(settings.seed, settings.seed + settings.seeds):
        screen.say(f"train: seed {seed}")
        alone = config.model_copy(update={"train": settings.model_copy(update={"seed": seed, "seeds": 1})})
        summary = train(alone, screen)
        found.append(_describe(registry, seed, str(summary.facts["run"])))
        seconds, images = seconds + summary.seconds, images + summary.rows
    values = [one["val_macro_auroc"] for one in found]
    facts = {"headline": f"val macro-AUROC {_format_spread(values)}", "seeds": found}
    versions = "+".join(str(one["version"]) for one in found)
    facts["next"] = f"python -m pipelines.derive model={versions} lake={config.lake}, their ensemble"
    return Summary("train", images, "images", seconds, facts)


def _describe(registry: Registry, seed: int, run_id: str) -> dict[str, Any]:
    history = registry.client().get_metric_history(run_id, "val_macro_auroc")
    best = max((point.value for point in history), default=float("nan"))
    return {"seed": seed, "run": run_id, "version": registry.version_of(run_id), "val_macro_auroc": best}


def _format_spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and range: 0.812 +- 0.003 (0.809 to 0.815) over 3 seeds."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return f"{mean:.4f} ± {deviation:.4f} ({min(values):.4f} to {max(values):.4f}) over {len(values)} seeds"
