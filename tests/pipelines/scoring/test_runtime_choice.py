"""The choice of a runtime: a precision is checked once per version, and its quantised network must be there."""

from pathlib import Path

import pytest

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime
from chestai.model.runtimes.effect import RuntimeEffect
from chestai.model.runtimes.quantised_file import QuantisedFile
from pipelines.scoring.runtime_choice import choose_runtime


def test_precision_is_checked_once_and_again_if_its_network_is_gone(
    registered: Config, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8: the effect is stored with the version, and the quantised network as a file."""
    lake = Lake(str(tmp_path / "lake"))
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    registry = Registry(registered.tracking.model_copy(update={"uri": uri}), lake)
    model = registry.load("1")
    measured: list[Runtime] = []

    def measure(
        config: Config, registry: Registry, model: RegisteredModel, runtime: Runtime, screen: Screen
    ) -> RuntimeEffect:
        measured.append(runtime)
        numbers = dict.fromkeys(("mean", "most", "changed_buckets", "changed_calls"), 0.0)
        scores = {"reference_auroc": 0.9, "auroc": 0.9, "map_correlation": 1.0}
        network = QuantisedFile.write(lake, "one.zip", b"a network")
        return RuntimeEffect(images=100, **numbers, **scores, quantised=network)

    monkeypatch.setattr("pipelines.scoring.precision_check.measure_effect", measure)
    config = conf.load(["cluster=laptop", f"lake={lake.root}", "runtime.precision=int8"])
    for expected in (1, 1):
        assert choose_runtime(config, registry, model, screen, "cpu").quantised == b"a network"
        assert len(measured) == expected
    Path(lake.uri("quantised", "one.zip")).unlink()
    assert choose_runtime(config, registry, model, screen, "cpu").quantised == b"a network" and len(measured) == 2
    Path(lake.uri("quantised", "one.zip")).write_bytes(b"another")
    assert choose_runtime(config, registry, model, screen, "cpu").quantised == b"a network" and len(measured) == 3
