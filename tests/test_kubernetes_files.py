"""Tests of the Kubernetes manifests, which Ray's own parsers read."""

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
    find_ray_clusters,
    iter_documents,
    iter_pods,
    load_command_config,
    parse_ray_start,
    read_yaml,
)


def test_manifests_have_known_kinds() -> None:
    kinds = {source: (document["apiVersion"], document["kind"]) for source, document in iter_documents()}
    allowed = {("ray.io/v1", kind) for kind in ("RayCluster", "RayJob", "RayService")}
    allowed |= {("apps/v1", "StatefulSet"), ("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy")}
    allowed |= {("v1", "PersistentVolumeClaim")}
    assert set(kinds.values()) == allowed, "no Secret is among them"
    assert len(find_ray_clusters()) == 4 and len(list(iter_pods())) == 4 * 3 + 2 + 2
    for source, document in iter_documents():
        assert re.fullmatch(r"[a-z][a-z0-9-]{1,40}", document["metadata"]["name"]), source
        if document["kind"] == "RayJob":
            assert sorted(document["spec"]) == sorted(FIELDS["job"]), source
            assert document["spec"]["shutdownAfterJobFinishes"] is True, source


@pytest.mark.parametrize("source", list(find_ray_clusters()))
def test_autoscaler_reads_each_cluster(source: str) -> None:
    cluster = find_ray_clusters()[source]
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
        parse_ray_start("ray start " + " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items()))
    custom = {"metadata": {"name": "c", "namespace": "n"}, "spec": cluster}
    kinds = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in kinds["cpu"]["resources"] and kinds["gpu"]["resources"]["GPU"] == 1


@pytest.mark.parametrize(("source", "pod"), list(iter_pods()), ids=[source for source, _ in iter_pods()])
def test_every_container_has_limits_and_no_secret(source: str, pod: dict[str, Any]) -> None:
    assert set(pod["spec"]) <= set(FIELDS["pod"])
    if not source.endswith(" head"):  # only the autoscaler on the head talks to Kubernetes
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
    policy = next(document for source, document in iter_documents() if source == "network.yaml: NetworkPolicy")["spec"]
    label = policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": label}}]
    assert all(
        pod["metadata"]["labels"] == label
        for source, pod in iter_pods()
        if not source.startswith(("endpoint", "gateway"))
    )
    containers = [container for _, pod in iter_pods() for container in pod["spec"]["containers"]]
    for container in containers:
        if container["name"] != "ray-job-submitter":
            # Only the endpoint needs the password of its database.
            shared = [variable for variable in container["env"] if variable["name"] != "PGPASSWORD"]
            assert shared == containers[0]["env"]


def test_jobs_run_known_stages_with_known_keys() -> None:
    jobs = {
        document["metadata"]["name"]: document["spec"] for source, document in iter_documents() if "RayJob" in source
    }
    gpus = {name: job["rayClusterSpec"]["workerGroupSpecs"][1] for name, job in jobs.items()}
    configs = {name: load_command_config(job["entrypoint"].split()) for name, job in jobs.items()}
    assert {config.cluster.address for config in configs.values()} == {"auto"}
    sweep = configs["chestai-sweep"]
    assert sweep.train.gpu and sweep.tune.max_concurrent is not None
    assert sweep.tune.max_concurrent * sweep.train.most_workers == gpus["chestai-sweep"]["maxReplicas"]
    score = gpus["chestai-score"]
    assert score["minReplicas"] == score["maxReplicas"], "scoring uses the GPUs that are up when it starts"


def test_pods_that_answer_requests_keep_the_outbox_on_a_volume() -> None:
    """The image keeps it in /state; the replicas of a RayService run on its workers."""
    documents = dict(iter_documents())
    claims = {
        claim["metadata"]["name"] for claim in documents["endpoint.yaml: StatefulSet"]["spec"]["volumeClaimTemplates"]
    }
    shared = documents["rayservice.yaml: PersistentVolumeClaim"]
    assert shared["spec"]["accessModes"] == ["ReadWriteMany"], "several nodes use it"
    serving = {source: pod for source, pod in iter_pods() if source.startswith(("endpoint", "rayservice"))}
    serving = {source: pod["spec"] for source, pod in serving.items() if not source.endswith(" head")}
    assert len(serving) == 3
    for source, pod in serving.items():
        mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
        claim = volumes.get(mounted["/state"])
        assert claim == {"claimName": shared["metadata"]["name"]} if claim else mounted["/state"] in claims, source
        assert pod["securityContext"] == {"fsGroup": CONFINED["runAsUser"]}, "the user may write to it"


def test_endpoint_is_reached_only_through_its_service() -> None:
    found = {document["kind"]: document for source, document in iter_documents() if source.startswith("endpoint")}
    name = found["Service"]["metadata"]["name"]
    pods, service, policy = (found[kind]["spec"] for kind in ("StatefulSet", "Service", "NetworkPolicy"))
    pod = pods["template"]
    (container,) = pod["spec"]["containers"]
    config = load_command_config([*container["command"], *container["args"]])
    (port,) = container["ports"]
    assert config.cluster.address is None and config.serve.host == "0.0.0.0"
    assert name in config.serve.hosts, "pods that name the Service get in; probes name the pod"
    assert config.serve.port == port["containerPort"] == policy["ingress"][0]["ports"][0]["port"]
    probes = [container[probe]["httpGet"] for probe in FIELDS["container"][-3:]]
    assert all(probe["port"] == port["name"] and ("GET", probe["path"]) in PERMISSIONS for probe in probes)
    assert service["type"] == "ClusterIP" and service["ports"][0]["targetPort"] == port["name"]
    label = {"matchLabels": pod["metadata"]["labels"]}
    assert label == {"matchLabels": service["selector"]} == policy["podSelector"] == pods["selector"]
    gateway = {"matchLabels": {"chestai/gateway": "true"}}
    assert policy["ingress"][0]["from"] == [{"namespaceSelector": {}, "podSelector": gateway}]
