"""What a cluster is made from: cluster.yaml, Dockerfile, compose.yaml, conf/kuberay.

Nothing is started: Ray's own parsers read what is Ray's, the rest is held to its form and to what the repository has.
"""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start
from ray.serve.schema import ServeDeploySchema

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from serve.auth.permissions import PERMISSIONS
from serve.deployments.app import APPLICATION
from serve.deployments.builder import build, words
from tests.support.paths import ROOT

MANIFESTS = sorted((ROOT / "conf" / "kuberay").glob("*.yaml"))
SERVICE = ROOT / "serve" / "deploy.yaml"
PLACES = [ROOT / "cluster.yaml", ROOT / "Dockerfile", ROOT / "compose.yaml", SERVICE, *MANIFESTS]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY\b|_KEY_ID")
# The fields of ray.io/v1 and of pods that the manifests use: a misspelt one would be refused, or do nothing.
FIELDS: dict[str, list[str]] = yaml.safe_load("""
job: [entrypoint, shutdownAfterJobFinishes, ttlSecondsAfterFinished, activeDeadlineSeconds, backoffLimit,
  rayClusterSpec, submitterPodTemplate]
cluster: [rayVersion, authOptions, enableInTreeAutoscaling, autoscalerOptions, headGroupSpec, workerGroupSpecs]
autoscaler: [idleTimeoutSeconds, resources, securityContext]
head: [serviceType, rayStartParams, template]
workers: [groupName, replicas, minReplicas, maxReplicas, rayStartParams, template]
pod: [containers, volumes, tolerations, restartPolicy, automountServiceAccountToken, enableServiceLinks,
  terminationGracePeriodSeconds]
container: [name, image, command, args, env, ports, resources, securityContext, volumeMounts, startupProbe,
  readinessProbe, livenessProbe]
""")
CONFINED: dict[str, Any] = {"runAsNonRoot": True, "runAsUser": 1000, "allowPrivilegeEscalation": False}
CONFINED |= {"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def takes(command: str) -> dict[str, Any]:
    """The options of a `ray start`, as Ray's own command line reads them. An unknown one raises."""
    return dict(start.make_context("start", shlex.split(command.split("ray start")[1])).params)


def overrides_of(words: list[str]) -> Config:
    """The configuration that `python -m MODULE key=value ...` runs with; the module must be of this repository."""
    assert words[:2] == ["python", "-m"]
    spec = find_spec(words[2])
    assert spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(ROOT)
    config = conf.load(words[3:], words[2].rsplit(".", 1)[-1])
    assert config.lake.startswith("s3://") and config.tracking.uri is not None, "nodes share no disk and no SQLite"
    return config


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
def test_what_is_to_be_filled_in_is_marked_and_nothing_is_invented(path: Path) -> None:
    lines = path.read_text().splitlines()
    for at, line in enumerate(lines):
        if "set-me" in line and not line.startswith("#"):
            assert any("# set:" in one for one in lines[max(0, at - 2) : at + 1]), f"{path.name}:{at + 1} is not marked"
        if "# set:" in line:
            assert any("set-me" in one for one in lines[at : at + 3]), f"{path.name}:{at + 1} marks nothing"
        assert not re.search(r"\b\d{12}\b|AKIA|@sha256:|\bami-[0-9a-f]{8,}|://\w+:(?!\$)[^@\s]+@", line), line


def test_launcher_takes_the_file_and_its_nodes_do_what_they_should() -> None:
    config = prepare_config(read("cluster.yaml"))
    validate_config(config)
    kinds = config["available_node_types"]
    assert config["head_node_type"] == "head" and kinds["head"]["max_workers"] == 0
    resources = {name: kind["resources"] for name, kind in kinds.items()}
    assert resources == {"head": {"CPU": 0}, "cpu": {"CPU": 16}, "gpu": {"CPU": 16, "GPU": 1}}
    for kind in (kinds["cpu"], kinds["gpu"]):
        assert 0 == kind["min_workers"] < kind["max_workers"] <= config["max_workers"]
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert kinds["gpu"]["docker"]["worker_run_options"] == ["--gpus all"]
    for kind in kinds.values():
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] is True for disk in kind["node_config"]["BlockDeviceMappings"])
    assert "IpPermissions" not in config["provider"]["security_group"], "ssh and the nodes themselves only"


def test_launcher_starts_every_node_with_the_token_and_the_dashboard_on_loopback() -> None:
    config = prepare_config(read("cluster.yaml"))
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    head, worker = (line for line in lines if "ray start" in line)
    assert all(line.startswith("RAY_AUTH_MODE=token ray start ") for line in (head, worker))
    options = takes(head)
    assert (options["head"], options["num_cpus"], options["dashboard_host"]) == (True, 0, "127.0.0.1")
    assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert takes(worker)["address"].endswith(f":{options['port']}")
    docker, mounts = config["docker"], config["file_mounts"]
    assert mounts == {"~/.ray/auth_token": "~/.ray/auth_token", "~/requirements.lock": "requirements.lock"}
    assert {"chmod 600 ~/.ray/auth_token", "cmp ~/requirements.lock /app/requirements.lock"} <= {
        line.split("  #")[0] for line in config["setup_commands"]
    }
    home = environment(stages()["node"])["HOME"]
    run = docker_start_cmds("ubuntu", docker["image"], mounts, "c", docker["run_options"], "chestai", home, "docker")
    assert f"/~/.ray/auth_token:{home}/.ray/auth_token " in run, "where Ray in the container looks for it"
    assert "-e RAY_AUTH_MODE=token" in run and "--cap-drop=ALL" in run
    assert f"AWS_REGION={config['provider']['region']}" in run


def stages() -> dict[str, list[tuple[str, str]]]:
    """Per stage of the Dockerfile its instructions with those of the stages it stands on."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()))
    found: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            origin, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            found[name] = list(found.get(origin, [("FROM", origin)]))
        else:
            found[name].append((instruction, rest))
    return found


def environment(stage: list[tuple[str, str]]) -> dict[str, str]:
    return dict(pair.split("=", 1) for instruction, rest in stage if instruction == "ENV" for pair in shlex.split(rest))


def test_image_is_installed_from_the_lock_with_hashes_and_runs_as_nobody_special() -> None:
    found = stages()
    assert list(found)[-1] == "node", "`docker build .` builds the last stage"
    for stage in found.values():
        assert re.fullmatch(r"python:3\.11-slim-\w+", stage[0][1])
        assert {instruction for instruction, _ in stage} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}
        assert [rest for instruction, rest in stage if instruction == "USER"][-1] == "1000:1000"
        runs = [part for instruction, rest in stage if instruction == "RUN" for part in rest.split("&&")]
        installs = [part.split() for part in runs if "pip" in part]
        assert installs[0][-2:] == ["-r", "requirements.lock"]
        assert all({"--require-hashes", "--no-deps", "--no-cache-dir"} <= set(words) for words in installs)
        assert not [key for key in environment(stage) if SECRET.search(key)]
        assert environment(stage)["RAY_AUTH_MODE"] == "token" and environment(stage)["PYTHONPATH"] == "/app"
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--trusted-host|-i http", text)
    pinned = [line for line in re.split(r"(?<!\\)\n", (ROOT / "requirements.lock").read_text()) if line]
    assert all("==" in line and "--hash=sha256:" in line and "://" not in line for line in pinned)


def test_image_has_the_code_and_nothing_else() -> None:
    sources = {rest.split()[0] for instruction, rest in stages()["node"] if instruction == "COPY"}
    code = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert sources == code | {"conf", "requirements.lock"}
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    assert {line[1:] for line in patterns if line[0] == "!"} == sources


def test_compose_publishes_on_loopback_only_and_takes_secrets_from_outside() -> None:
    body = re.sub(r"(?m)^\s*#.*$", "", (ROOT / "compose.yaml").read_text())
    assert body.count("$") == len(re.findall(r"\$\{\w+:[?-][^}]+\}", body)), "a variable that may be missing in silence"
    for name, service in read("compose.yaml")["services"].items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), f"{name}: a pinned tag"
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", [])), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service), name
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key} is in the file"


def test_compose_services_wait_for_what_they_need() -> None:
    compose = read("compose.yaml")
    services = compose["services"]
    for name, service in services.items():
        once = service["restart"] == "no"
        assert ("healthcheck" in service) != once, name
        for other, how in service.get("depends_on", {}).items():
            ends = services[other]["restart"] == "no"
            assert how == {"condition": "service_completed_successfully" if ends else "service_healthy"}, name
        if "build" in service:
            assert service["build"]["context"] == "." and service["build"]["target"] in stages()
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {volume for volume in used if volume[0] not in "./$"} == set(compose["volumes"])
    head = takes(shlex.join(services["ray"]["command"]))
    assert head["head"] and head["block"] and services["ray"]["environment"]["RAY_AUTH_MODE"] == "token"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}: {document['kind']}", document


def ray_clusters() -> dict[str, dict[str, Any]]:
    specs = {where: document["spec"] for where, document in documents() if document["apiVersion"] == "ray.io/v1"}
    return {where: spec.get("rayClusterSpec", spec.get("rayClusterConfig", spec)) for where, spec in specs.items()}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template."""
    for where, cluster in ray_clusters().items():
        yield f"{where} head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{where} {group['groupName']}", group["template"]
    for where, document in documents():
        for key in ("submitterPodTemplate", "template"):
            if key in document["spec"]:
                yield f"{where} {key}", document["spec"][key]


def test_manifests_are_of_the_kinds_that_the_operator_and_kubernetes_have() -> None:
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
def test_ray_s_autoscaler_reads_each_cluster(where: str) -> None:
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
        takes("ray start " + " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items()))
    custom = {"metadata": {"name": "c", "namespace": "n"}, "spec": cluster}
    kinds = _derive_autoscaling_config_from_ray_cr(custom)["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in kinds["cpu"]["resources"] and kinds["gpu"]["resources"]["GPU"] == 1


@pytest.mark.parametrize(("where", "pod"), list(pods()), ids=[where for where, _ in pods()])
def test_every_container_is_bounded_confined_and_holds_no_secret(where: str, pod: dict[str, Any]) -> None:
    assert set(pod["spec"]) <= set(FIELDS["pod"])
    if not where.endswith(" head"):  # only the autoscaler there speaks to Kubernetes
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in pod["spec"]["containers"]:
        assert set(container) <= set(FIELDS["container"])
        resources = container["resources"]
        assert resources["requests"] == resources["limits"] and {"cpu", "memory"} <= set(resources["limits"])
        assert container["securityContext"] == CONFINED
        assert container["image"] == read("cluster.yaml")["docker"]["image"]
        for variable in container.get("env", []):
            if SECRET.search(variable["name"]):
                assert set(variable) == {"name", "valueFrom"} and set(variable["valueFrom"]) == {"secretKeyRef"}
                assert {"name", "key"} <= set(variable["valueFrom"]["secretKeyRef"]) <= {"name", "key", "optional"}


def test_pods_of_a_cluster_have_the_same_environment_and_the_label_of_the_network_policy() -> None:
    policy = next(document for where, document in documents() if where == "network.yaml: NetworkPolicy")["spec"]
    label = policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": label}}]
    assert all(pod["metadata"]["labels"] == label for where, pod in pods() if not where.startswith("endpoint"))
    seen = [container for _, pod in pods() for container in pod["spec"]["containers"]]
    for one in seen:
        if one["name"] != "ray-job-submitter":  # only the endpoint speaks to the database of its state
            assert [variable for variable in one["env"] if variable["name"] != "PGPASSWORD"] == seen[0]["env"]


def test_jobs_run_stages_of_this_repository_with_keys_that_it_knows() -> None:
    jobs = {document["metadata"]["name"]: document["spec"] for where, document in documents() if "RayJob" in where}
    gpus = {name: job["rayClusterSpec"]["workerGroupSpecs"][1] for name, job in jobs.items()}
    configs = {name: overrides_of(job["entrypoint"].split()) for name, job in jobs.items()}
    assert {config.cluster.address for config in configs.values()} == {"auto"}
    sweep = configs["chestai-sweep"]
    assert sweep.train.gpu and sweep.tune.max_concurrent is not None
    assert sweep.tune.max_concurrent * sweep.train.workers == gpus["chestai-sweep"]["maxReplicas"]
    score = gpus["chestai-score"]
    assert score["minReplicas"] == score["maxReplicas"], "scoring takes the GPUs that are there when it starts"


def test_endpoint_is_reached_through_its_service_by_a_gateway_only() -> None:
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


def test_serve_deploys_an_application_of_this_repository_with_keys_that_it_knows() -> None:
    (service,) = (document["spec"] for where, document in documents() if where == "rayservice.yaml: RayService")
    plain, kube = (
        ServeDeploySchema(**one) for one in (read("serve/deploy.yaml"), yaml.safe_load(service["serveConfigV2"]))
    )
    assert (plain.http_options.host, kube.http_options.host) == ("127.0.0.1", "0.0.0.0")
    for one in (plain, kube):
        (wanted,) = one.applications
        module, name = wanted.import_path.split(":")
        assert getattr(import_module(module), name) is build and wanted.name == APPLICATION
        config = conf.load(words(wanted.args), "serve")
        assert (one.http_options.request_timeout_s or 0) > config.serve.deadline_seconds
        assert config.lake.startswith("s3://") and config.tracking.uri is not None and config.state.url is not None
    policies = [document["spec"] for where, document in documents() if where.endswith("NetworkPolicy")]
    ports = {port["port"] for policy in policies for rule in policy["ingress"] for port in rule.get("ports", ())}
    assert kube.http_options.port in ports


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"lake": "lake"}, "lake=lake: replicas have no common working folder"),
        ({"lake": "s3://bucket/lake"}, "state.url is needed"),
        ({"lake": "/lake", "auth.required": False}, "auth.required=false is for `python -m serve` on loopback"),
        ({"lake": "/lake", "serve.alert.webhook": "http://hook.example"}, "serve.alert.webhook must be an https URL"),
        ({"lake": "/lake", "tracking.uri": "http://u:p@mlflow:5000"}, "tracking.uri holds a password"),
        ({"serve.port": 1}, "serve.port is for `python -m serve`"),
        ({"serve.max_replica": 1}, "max_replica"),
    ],
)
def test_a_wrong_deployment_says_so(args: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        build(args)
