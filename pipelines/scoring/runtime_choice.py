"""Which runtime scores: the engine of the config, in a precision that has passed its check on val."""

import torch

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime
from chestai.model.runtimes.precision import list_candidates


def choose_runtime(config: Config, registry: Registry, model: RegisteredModel, screen: Screen, device: str) -> Runtime:
    """Returns the runtime of the config in the precision that it names, or in the fastest that passes the check.

    A precision is checked once per version, on Ray, which is started if need be; again if its quantised network is no
    longer in the lake. The result is stored as a tag of the registered version, where the endpoint finds it too.

    Args:
        device: Of the forward passes, `cpu` or `cuda`.

    Raises:
        UserError: The named precision breaks a limit of `runtime`, or there is no readable val image.
    """
    *others, last = list_candidates(config.runtime, torch.device(device))
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
    if effect is None or (effect.quantised is not None and not effect.quantised.is_intact(registry.lake)):
        from pipelines.scoring.precision_check import measure_effect  # here, for Ray takes a second to import

        effect = measure_effect(config, registry, model, runtime, screen)
        registry.note_runtime(model.version, runtime, effect)
    line, fault = f"{runtime.precision}: {effect}", effect.find_fault(config.runtime)
    if fault is not None:
        raise UserError(f"{line}; {fault}: take runtime.precision=fp32")
    screen.say(line)
    return effect.complete(runtime, registry.lake)
