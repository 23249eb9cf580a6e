"""Plan: what a training will cost before it starts: hours, memory and disk, from measured rates.

    python -m pipelines.plan images=112120 network.size=512 train.epochs=20 gpu=H100 gpus=4 images_per_s=900

Everything else is read from the configuration: backbone, size, epochs, batch, seeds, shares of the splits. Each figure
says which measurement, on which hardware, it comes from, and how it was scaled: in proportion to cores or GPUs, and
against the network's arithmetic. Nothing is guessed for hardware without a rate: give `plan.images_per_s`, or your own
`plan.rates` in the form of pipelines/training/rates.csv.

Raises UserError: no rate for the hardware, an unusable table of rates, no images given and no snapshot.
"""

import time
from pathlib import Path

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.hardware import count_cores
from chestai.config.schema import Config
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.model.classifier import Classifier
from pipelines.training.build import make_classifier
from pipelines.training.cost import BYTES, NetworkCost, count_cost
from pipelines.training.estimate import (
    RATES,
    Estimate,
    Rate,
    estimate_network,
    estimate_reading,
    read_rates,
)

FORWARD_SHARE = 3  # a step computes about three forward passes: one, and two more of its size backward
STATES = 5  # copies of the weights in a checkpoint: network, moving average, AdamW's two moments, the best network
GREY = (0.5,), (0.25,)  # any normalisation costs the same


def run(config: Config, screen: Screen) -> Summary:
    """Estimate the costs; only the report is written, and Ray is not started."""
    started = time.monotonic()
    counts = _count_images(config)
    rates = read_rates() + (read_rates(Path(config.plan.rates).expanduser()) if config.plan.rates else [])
    cost = count_cost(_make_network(config))
    hours, stages = _estimate_hours(config, counts, rates, cost)
    total = sum(hours.values())
    facts: dict[str, str] = {
        "headline": f"{_format_hours(total)} for {sum(counts.values()):,} images at {config.network.size} px",
        "images": ", ".join(f"{count:,} {split}" for split, count in counts.items()),
        **stages,
        **_estimate_space(config, counts, cost),
        "rates": str(config.plan.rates or RATES),
    }
    summary = Summary("plan", sum(counts.values()), "images", time.monotonic() - started, facts)
    summary.save(Lake(config.lake))
    return summary


def _count_images(config: Config) -> dict[str, int]:
    """Images of each split: of a corpus of `plan.images` by the configured shares, or of the newest snapshot."""
    if config.plan.images is None:
        splits = Lake(config.lake).find_snapshot().splits
        return {name: int(splits.get(name, {}).get("files", 0)) for name in ("train", "val", "test")}
    test = round(config.plan.images * config.split.test_fraction)
    val = round((config.plan.images - test) * config.split.val_fraction)
    return {"train": config.plan.images - test - val, "val": val, "test": test}


def _estimate_hours(
    config: Config, counts: dict[str, int], rates: list[Rate], cost: NetworkCost
) -> tuple[dict[str, float], dict[str, str]]:
    """Hours by stage, and the same as text with what they are based on."""
    plan, settings = config.plan, config.train
    cores, images = plan.cores or count_cores(), sum(counts.values())
    training, inference = _estimate_rates(config, cores, rates, cost)
    work: dict[str, tuple[Estimate, float]] = {
        "ETL": (estimate_reading(rates, "etl", plan.cpu, cores), images),
        "pixel cache": (estimate_reading(rates, "cache", plan.cpu, cores), images),
        "training": (training, counts["train"] * settings.epochs * settings.seeds),
        "validation": (inference, counts["val"] * settings.epochs * settings.seeds),
        "evaluation": (inference, (counts["val"] + counts["test"]) * settings.seeds),
    }
    hours = {stage: estimate.hours(count) for stage, (estimate, count) in work.items()}
    texts = {
        stage: f"{_format_hours(hours[stage])}: {count:,.0f} images at {estimate.images_per_s:,.3g}/s, "
        f"from {estimate.basis}"
        for stage, (estimate, count) in work.items()
    }
    return hours, texts


def _estimate_rates(config: Config, cores: int, rates: list[Rate], cost: NetworkCost) -> tuple[Estimate, Estimate]:
    """Of training, and of a forward pass."""
    plan = config.plan
    hardware, units = (plan.cpu, cores) if plan.gpu is None else (plan.gpu, plan.gpus)
    if plan.images_per_s is not None:
        times = 1 if plan.gpu is None else units
        unit = "all cores" if plan.gpu is None else f"a {plan.gpu}, {units} of them"
        training = Estimate(plan.images_per_s * times, f"plan.images_per_s={plan.images_per_s:g} on {unit}")
    else:
        flops_of = _count_measured(rates, ("train", "infer"))
        training = estimate_network(rates, "train", hardware, units, cost.flops, flops_of)
        if any(rate.stage == "infer" and rate.hardware == hardware for rate in rates):
            return training, estimate_network(rates, "infer", hardware, units, cost.flops, flops_of)
    basis = f"{FORWARD_SHARE} times the rate of training, a third of whose arithmetic it is"
    return training, Estimate(FORWARD_SHARE * training.images_per_s, basis)


def _count_measured(rates: list[Rate], stages: tuple[str, ...]) -> dict[tuple[str, int], float]:
    networks = {(rate.backbone, rate.size) for rate in rates if rate.stage in stages}
    return {
        (backbone, size): count_cost(Classifier(backbone, len(NIH14), size, *GREY)).flops for backbone, size in networks
    }


def _estimate_space(config: Config, counts: dict[str, int], cost: NetworkCost) -> dict[str, str]:
    settings, size = config.train, config.network.size
    images = -(-settings.batch_size // (settings.most_workers * settings.accumulate))
    memory = cost.training_bytes(images, bool(settings.ema))
    cache = sum(counts.values()) * size**2
    checkpoint = STATES * BYTES * cost.weights
    return {
        "memory of a worker": f"{memory / 1e9:.1f} GB in fp32 for {images} images at a time, counted from the "
        "network's own tensors; bf16 needs about half, and the libraries take 1 to 2 GB more",
        "disk": f"{cache / 1e9:.1f} GB of pixel cache (a byte a pixel), {checkpoint / 1e9:.2f} GB of checkpoint",
        "network": f"{config.network.backbone}: {cost.weights / 1e6:.1f} million weights, "
        f"{cost.flops / 1e9:.1f} GFLOP an image",
    }


def _make_network(config: Config) -> Classifier:
    mean, std = ((value * config.network.channels) for value in GREY)
    return make_classifier(config.network, len(NIH14), mean, std)


def _format_hours(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.1f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


if __name__ == "__main__":
    run_stage_command("pipelines.plan", run)
