"""Tests of the options of an embedded Ray."""

import os
import socket
import time

import pytest

from chestai.config import load as conf
from chestai.config.cluster import Cluster
from chestai.config.ray_options import GCS_PORT, check_ray_address, find_ray_address, plan_embedded_ray
from chestai.errors import UserError


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


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_dead_cluster_is_reported_within_seconds(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", form.format(port))
        check_ray_address(cluster)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=.*: no Ray answers there \(.*refused.*unset it$"):
        check_ray_address(cluster)
    with pytest.raises(UserError, match=r"^cluster\.address=nonsense: no Ray answers there"):
        check_ray_address(cluster.model_copy(update={"address": "nonsense"}))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://ray.example.org"])
def test_address_of_a_job_server_is_refused_with_the_way_to_use_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=rf"^RAY_ADDRESS={address} is a server of jobs: put `ray job submit"):
        check_ray_address(cluster)


@pytest.mark.parametrize("address", ["", "auto", "local"])
def test_addresses_that_ray_finds_itself_are_left_to_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    check_ray_address(cluster)
