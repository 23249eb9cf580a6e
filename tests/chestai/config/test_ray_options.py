"""Tests of the options of an embedded Ray."""

import os

import pytest

from chestai.config import load as conf
from chestai.config.cluster import Cluster
from chestai.config.ray_options import GCS_PORT, find_ray_address, plan_embedded_ray


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return conf.load(["cluster=laptop"]).cluster


def test_ray_address_comes_from_config_before_environment(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_ray_address(cluster) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert find_ray_address(cluster) == "10.0.0.1:6379"
    assert find_ray_address(cluster.model_copy(update={"address": "auto"})) == "auto"


def test_embedded_ray_has_resources_of_config(cluster: Cluster) -> None:
    options = plan_embedded_ray(cluster.model_copy(update={"cpus": 1000, "object_store_gb": 0.5}))
    assert options.arguments["address"] == "local" and options.arguments["num_cpus"] == 1000
    assert options.arguments["object_store_memory"] == 2**29
    assert options.arguments["include_dashboard"] is False and options.environment == {}
    few = plan_embedded_ray(cluster.model_copy(update={"cpus": 1}))
    assert few.arguments["num_cpus"] == os.cpu_count(), "at least the cores of the machine"


def test_workers_get_address_when_port_is_fixed(cluster: Cluster) -> None:
    options = plan_embedded_ray(cluster, dashboard=True, dashboard_port=8300, gcs_port=6400)
    assert options.environment == {GCS_PORT: "6400"}
    assert options.arguments["runtime_env"] == {"env_vars": {"RAY_ADDRESS": "127.0.0.1:6400"}}
    assert options.arguments["include_dashboard"] is True and options.arguments["dashboard_port"] == 8300
