"""Reads the files that describe clusters: cluster.yaml, Dockerfile, compose.yaml, conf/kuberay, serve/deploy.yaml."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from ray.scripts.scripts import start

from chestai.config import load as conf
from chestai.config.schema import Config
from tests.support.paths import ROOT

MANIFESTS = sorted((ROOT / "conf" / "kuberay").glob("*.yaml"))
SERVICE = ROOT / "serve" / "deploy.yaml"
CLUSTER_FILES = [ROOT / "cluster.yaml", ROOT / "Dockerfile", ROOT / "compose.yaml", SERVICE, *MANIFESTS]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY\b|_KEY_ID")
# The fields of ray.io/v1 and of pods that the manifests use. Kubernetes would reject or ignore a misspelt one.
FIELDS: dict[str, list[str]] = yaml.safe_load("""
job: [entrypoint, shutdownAfterJobFinishes, ttlSecondsAfterFinished, activeDeadlineSeconds, backoffLimit,
  rayClusterSpec, submitterPodTemplate]
cluster: [rayVersion, authOptions, enableInTreeAutoscaling, autoscalerOptions, headGroupSpec, workerGroupSpecs]
autoscaler: [idleTimeoutSeconds, resources, securityContext]
head: [serviceType, rayStartParams, template]
workers: [groupName, replicas, minReplicas, maxReplicas, rayStartParams, template]
pod: [containers, volumes, tolerations, restartPolicy, automountServiceAccountToken, enableServiceLinks,
  terminationGracePeriodSeconds, securityContext]
container: [name, image, command, args, env, ports, resources, securityContext, volumeMounts, startupProbe,
  readinessProbe, livenessProbe]
""")
CONFINED: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def read_yaml(name: str) -> Any:
    """Read a YAML file by its path below the repository's root."""
    return yaml.safe_load((ROOT / name).read_text())


def parse_ray_start(command: str) -> dict[str, Any]:
    """Parse the options of a `ray start` with Ray's own command line; raise for an unknown one."""
    return dict(start.make_context("start", shlex.split(command.split("ray start")[1])).params)


def load_command_config(words: list[str]) -> Config:
    """Load the configuration of `python -m MODULE key=value ...`; the module must belong to this repository."""
    assert words[:2] == ["python", "-m"]
    spec = find_spec(words[2])
    assert spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(ROOT)
    config = conf.load(words[3:], words[2].rsplit(".", 1)[-1])
    assert config.lake.startswith("s3://") and config.tracking.uri is not None, "nodes share no disk and no SQLite"
    return config


def iter_documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each document of the manifests, with its source as `file: kind`."""
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}: {document['kind']}", document


def find_ray_clusters() -> dict[str, dict[str, Any]]:
    """Find the specification of each Ray cluster, by the source of its document."""
    specs = {source: document["spec"] for source, document in iter_documents() if document["apiVersion"] == "ray.io/v1"}
    return {source: spec.get("rayClusterSpec", spec.get("rayClusterConfig", spec)) for source, spec in specs.items()}


def iter_pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pod template, with its source and part."""
    for source, cluster in find_ray_clusters().items():
        yield f"{source} head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{source} {group['groupName']}", group["template"]
    for source, document in iter_documents():
        for key in ("submitterPodTemplate", "template"):
            if key in document["spec"]:
                yield f"{source} {key}", document["spec"][key]
