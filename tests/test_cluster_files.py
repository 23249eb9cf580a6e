"""What a cluster is made from: cluster.yaml, Dockerfile, compose.yaml, conf/kuberay.

Nothing is started: Ray's own parsers read what is Ray's, the rest is held to its form and to what the repository has.
"""

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from chestai.config import load as conf
from chestai.errors import UserError
from serve.deployments.app import APPLICATION
from serve.deployments.builder import build, to_overrides
from tests.support.manifests import (
    PLACES,
    SECRET,
    documents,
    ray_start_options,
    read_yaml,
)
from tests.support.paths import ROOT


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
def test_placeholders_are_marked_and_nothing_is_invented(path: Path) -> None:
    lines = path.read_text().splitlines()
    for at, line in enumerate(lines):
        if "set-me" in line and not line.startswith("#"):
            assert any("# set:" in one for one in lines[max(0, at - 2) : at + 1]), f"{path.name}:{at + 1} is not marked"
        if "# set:" in line:
            assert any("set-me" in one for one in lines[at : at + 3]), f"{path.name}:{at + 1} marks nothing"
        assert not re.search(r"\b\d{12}\b|AKIA|@sha256:|\bami-[0-9a-f]{8,}|://\w+:(?!\$)[^@\s]+@", line), line


def test_cluster_launcher_accepts_the_file() -> None:
    config = prepare_config(read_yaml("cluster.yaml"))
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


def test_cluster_launcher_starts_nodes_with_token_and_dashboard_on_loopback() -> None:
    config = prepare_config(read_yaml("cluster.yaml"))
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    head, worker = (line for line in lines if "ray start" in line)
    assert all(line.startswith("RAY_AUTH_MODE=token ray start ") for line in (head, worker))
    options = ray_start_options(head)
    assert (options["head"], options["num_cpus"], options["dashboard_host"]) == (True, 0, "127.0.0.1")
    assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert ray_start_options(worker)["address"].endswith(f":{options['port']}")
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


def test_image_installs_from_lock_with_hashes_and_runs_unprivileged() -> None:
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


def test_image_holds_only_the_code() -> None:
    sources = {rest.split()[0] for instruction, rest in stages()["node"] if instruction == "COPY"}
    code = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert sources == code | {"conf", "requirements.lock"}
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    assert {line[1:] for line in patterns if line[0] == "!"} == sources


def test_compose_publishes_on_loopback_and_reads_secrets_from_environment() -> None:
    body = re.sub(r"(?m)^\s*#.*$", "", (ROOT / "compose.yaml").read_text())
    assert body.count("$") == len(re.findall(r"\$\{\w+:[?-][^}]+\}", body)), "a variable that may be missing in silence"
    for name, service in read_yaml("compose.yaml")["services"].items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), f"{name}: a pinned tag"
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", [])), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service), name
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key} is in the file"


def test_compose_services_wait_for_their_dependencies() -> None:
    compose = read_yaml("compose.yaml")
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
    head = ray_start_options(shlex.join(services["ray"]["command"]))
    assert head["head"] and head["block"] and services["ray"]["environment"]["RAY_AUTH_MODE"] == "token"


def test_serve_config_deploys_known_application_with_known_keys() -> None:
    (service,) = (document["spec"] for where, document in documents() if where == "rayservice.yaml: RayService")
    plain, kube = (
        ServeDeploySchema(**one) for one in (read_yaml("serve/deploy.yaml"), yaml.safe_load(service["serveConfigV2"]))
    )
    assert (plain.http_options.host, kube.http_options.host) == ("127.0.0.1", "0.0.0.0")
    for one in (plain, kube):
        (wanted,) = one.applications
        module, name = wanted.import_path.split(":")
        assert getattr(import_module(module), name) is build and wanted.name == APPLICATION
        config = conf.load(to_overrides(wanted.args), "serve")
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
def test_rejects_wrong_deployment_arguments(args: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        build(args)
