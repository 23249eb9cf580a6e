"""The Kubernetes manifests: read by Ray's own parsers, and held to their form."""

import re
from typing import Any

import pytest
import ray
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from serve.auth.permissions import PERMISSIONS
from tests.support.manifests import (
    CONFINED,
    FIELDS,
    SECRET,
    documents,
    overrides_of,
    pods,
    ray_clusters,
    ray_start_options,
    read_yaml,
)


def test_manifests_have_known_kinds() -> None:
    kinds = {where: (document["apiVersion"], document["kind"]) for where, document in documents()}
    allowed = {("ray.io/v1", kind) for kind in ("RayCluster", "RayJob", "RayService")}
    allowed |= {("apps/v1", "Deployment"), ("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy")}
    assert set(kinds.values()) == allowed, "and no Secret among them"
    assert len(ray_clusters()) == 4 and len(list(pods())) == 4 * 3 + 2 + 1
    for where, document in documents():
        assert re.fullmatch(r"[a-z][a-z0-9-]{1,40}", document["metadata"]["name"]), where
        if document["kind"] == "RayJob":
            assert sorted(document["spec"]) == sorted(FIELDS["job"]), where
            assert document["spec"]["shutdownAfterJobFinishes"] is True, where


@pytest.mark.parametrize("where", list(ray_clusters()))
def test_autoscaler_reads_each_cluster(where: str) -> None:
    cluster = ray_clusters()[where]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for part, fields in ((cluster, "cluster"), (cluster["autoscalerOptions"], "autoscaler"), (head, "head")):
        assert sorted(part) == sorted(FIELDS[fields])
    assert cluster["rayVersion"] == ray.__version__ and cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"] == {"mode": "token"} and head["serviceType"] == "ClusterIP"
    assert cluster["autoscalerOptions"]["securityContext"] == CONFINED
    for group in workers:
        assert sorted(group) == sorted(FIELDS["workers"])
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] > 0
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        ray_start_options("ray start " + " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items()))
    custom = {"metadata": {"name": "c", "namespace": "n"}, "spec": cluster}
    kinds = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in kinds["cpu"]["resources"] and kinds["gpu"]["resources"]["GPU"] == 1


@pytest.mark.parametrize(("where", "pod"), list(pods()), ids=[where for where, _ in pods()])
def test_every_container_has_limits_and_no_secret(where: str, pod: dict[str, Any]) -> None:
    assert set(pod["spec"]) <= set(FIELDS["pod"])
    if not where.endswith(" head"):  # only the autoscaler there speaks to Kubernetes
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in pod["spec"]["containers"]:
        assert set(container) <= set(FIELDS["container"])
        resources = container["resources"]
        assert resources["requests"] == resources["limits"] and {"cpu", "memory"} <= set(resources["limits"])
        assert container["securityContext"] == CONFINED
        assert container["image"] == read_yaml("cluster.yaml")["docker"]["image"]
        for variable in container.get("env", []):
            if SECRET.search(variable["name"]):
                assert set(variable) == {"name", "valueFrom"} and set(variable["valueFrom"]) == {"secretKeyRef"}
                assert {"name", "key"} <= set(variable["valueFrom"]["secretKeyRef"]) <= {"name", "key", "optional"}


def test_pods_of_a_cluster_share_environment_and_network_policy_label() -> None:
    policy = next(document for where, document in documents() if where == "network.yaml: NetworkPolicy")["spec"]
    label = policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": label}}]
    assert all(pod["metadata"]["labels"] == label for where, pod in pods() if not where.startswith("endpoint"))
    seen = [container for _, pod in pods() for container in pod["spec"]["containers"]]
    for one in seen:
        if one["name"] != "ray-job-submitter":  # only the endpoint speaks to the database of its state
            assert [variable for variable in one["env"] if variable["name"] != "PGPASSWORD"] == seen[0]["env"]


def test_jobs_run_known_stages_with_known_keys() -> None:
    jobs = {document["metadata"]["name"]: document["spec"] for where, document in documents() if "RayJob" in where}
    gpus = {name: job["rayClusterSpec"]["workerGroupSpecs"][1] for name, job in jobs.items()}
    configs = {name: overrides_of(job["entrypoint"].split()) for name, job in jobs.items()}
    assert {config.cluster.address for config in configs.values()} == {"auto"}
    sweep = configs["chestai-sweep"]
    assert sweep.train.gpu and sweep.tune.max_concurrent is not None
    assert sweep.tune.max_concurrent * sweep.train.workers == gpus["chestai-sweep"]["maxReplicas"]
    score = gpus["chestai-score"]
    assert score["minReplicas"] == score["maxReplicas"], "scoring takes the GPUs that are there when it starts"


def test_endpoint_is_reached_only_through_its_service() -> None:
    found = {document["kind"]: document["spec"] for where, document in documents() if where.startswith("endpoint")}
    deployment, service, policy = found["Deployment"], found["Service"], found["NetworkPolicy"]
    pod = deployment["template"]
    (container,) = pod["spec"]["containers"]
    config = overrides_of([*container["command"], *container["args"]])
    (port,) = container["ports"]
    assert config.cluster.address is None and config.serve.host == "0.0.0.0"
    assert config.serve.port == port["containerPort"] == policy["ingress"][0]["ports"][0]["port"]
    probes = [container[probe]["httpGet"] for probe in FIELDS["container"][-3:]]
    assert all(probe["port"] == port["name"] and ("GET", probe["path"]) in PERMISSIONS for probe in probes)
    assert service["type"] == "ClusterIP" and service["ports"][0]["targetPort"] == port["name"]
    label = {"matchLabels": pod["metadata"]["labels"]}
    assert label == {"matchLabels": service["selector"]} == policy["podSelector"] == deployment["selector"]
    gateway = {"matchLabels": {"chestai/gateway": "true"}}
    assert policy["ingress"][0]["from"] == [{"namespaceSelector": {}, "podSelector": gateway}]
