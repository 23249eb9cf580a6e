"""An embedded Ray listens on loopback alone: its metrics ask for no token."""

import ipaddress
import json
import sys

import pytest

from tests.support.processes import free_port, process_environment, start_process, wait_for_success

# Prints the addresses on which this process and those it started listen, once Ray's metrics are up.
LIST = """
import json, sys, time
import psutil

def list_addresses():
    found = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            found += [tuple(one.laddr) for one in process.net_connections("tcp") if one.status == "LISTEN"]
        except psutil.Error:
            pass
    return found

def wait_for_metrics(*ports):
    end = time.monotonic() + 60
    while not {*ports} <= {port for _, port in list_addresses()} and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(2)
    print("listening", json.dumps(list_addresses()))

from chestai.config import load as conf
config = conf.load(["cluster=laptop", "lake=/nowhere", "cluster.object_store_gb=0.2"])
"""
STARTS = {
    "endpoint": "from serve.deployments.ray_connection import connect_ray\nconnect_ray(config)\n",
    "pipelines": "from pipelines.cluster import ray_cluster\n(ray := ray_cluster(config.cluster, True)).__enter__()\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["endpoint", pytest.param("pipelines", marks=pytest.mark.slow)])
def test_embedded_ray_listens_on_loopback_only(start: str) -> None:
    ports = [free_port(), free_port()]
    metrics = dict(zip(("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"), map(str, ports), strict=True))
    code = f"{LIST}{STARTS[start]}wait_for_metrics({ports[0]}, {ports[1]})"
    with process_environment(**metrics) as env:
        kept = {name: value for name, value in env.items() if not name.startswith("RAY_")}
        output = wait_for_success(start_process(kept, sys.executable, "-c", code))
    line = next(line for line in output.splitlines() if line.startswith("listening "))
    listening = json.loads(line.removeprefix("listening "))
    assert {*ports} <= {port for _, port in listening} and len(listening) > 6, "Ray with its metrics was up"
    addresses = {ipaddress.ip_address(ip) for ip, _ in listening}
    mapped = {getattr(ip, "ipv4_mapped", None) or ip for ip in addresses}
    assert all(ip.is_loopback for ip in mapped), listening
