"""The network to train, its input normalisation and its triage rule, as configured."""

from collections.abc import Sequence

import numpy as np
import timm
import torch

from chestai.config.schema import Config
from chestai.config.training import Network
from chestai.errors import UserError
from chestai.labels.findings import KNOWN_FINDINGS
from chestai.lake.snapshot import Snapshot
from chestai.model.classifier import Classifier
from chestai.triage.rule import TriageRule


def build_network(config: Config, snapshot: Snapshot) -> Classifier:
    """Builds the configured network with random weights, which depend on `train.seed` alone.

    Raises:
        UserError: The backbone is no timm model, or cannot be used.
    """
    settings = config.network
    if settings.backbone not in timm.list_models():
        raise UserError(f"network.backbone={settings.backbone} is not a timm model; densenet121 is the default")
    torch.manual_seed(config.train.seed)
    mean, std = choose_normalisation(config, snapshot)
    return make_classifier(settings, len(snapshot.vocabulary), mean, std)


def make_classifier(settings: Network, findings: int, mean: Sequence[float], std: Sequence[float]) -> Classifier:
    """The network of the settings for a number of findings; mean and std per input channel, in units of full scale."""
    return Classifier(settings.backbone, findings, settings.size, mean, std, settings.dropout, settings.frozen)


def choose_normalisation(config: Config, snapshot: Snapshot) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each input channel, in units of full scale."""
    channels = config.network.channels
    if config.network.normalisation == "dataset":
        return (snapshot.pixel_mean,) * channels, (snapshot.pixel_std,) * channels
    if config.network.normalisation == "torchxrayvision":  # its pixels span -1024 to 1024
        return (0.5,) * channels, (0.5 / 1024,) * channels
    mean, std = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    if channels == 3:
        return tuple(mean), tuple(std)
    return (float(np.mean(mean)),), (float(np.mean(std)),)


def make_triage_rule(config: Config, vocabulary: Sequence[str]) -> TriageRule:
    """The configured triage rule, reduced to the findings of a network.

    Raises:
        UserError: A weight names an unknown finding, or no weight is for a finding of the network.
    """
    for finding in config.triage.weights:
        if finding not in (*KNOWN_FINDINGS, *vocabulary):
            raise UserError(
                f"triage.weights.{finding} is not a finding of the snapshot; it has {', '.join(vocabulary)}"
            )
    try:
        return config.triage.to_rule().restrict_to(vocabulary)
    except ValueError as error:
        names = ", ".join(vocabulary)
        raise UserError(
            f"triage.weights has none of the snapshot's findings: add a weight for one of {names}"
        ) from error
