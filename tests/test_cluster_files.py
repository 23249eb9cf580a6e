"""Tests of cluster.yaml, Dockerfile, compose.yaml and the files that deploy the endpoint.

Nothing is started: Ray's own parsers read Ray's files; the others are checked for form and against the repository.
"""

import json
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
    CLUSTER_FILES,
    SECRET,
    iter_documents,
    parse_ray_start,
    read_yaml,
)
from tests.support.paths import ROOT


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=lambda path: path.name)
def test_placeholders_are_marked_and_nothing_is_invented(path: Path) -> None:
    lines = path.read_text().splitlines()
    for at, line in enumerate(lines):
        if "set-me" in line and not line.startswith("#"):
            assert any("# set:" in near for near in lines[max(0, at - 2) : at + 1]), (
                f"{path.name}:{at + 1} is not marked"
            )
        if "# set:" in line:
            assert any("set-me" in near for near in lines[at : at + 3]), f"{path.name}:{at + 1} marks nothing"
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
    assert "IpPermissions" not in config["provider"]["security_group"], "only ssh and the nodes may connect"


def test_cluster_launcher_starts_nodes_with_token_and_dashboard_on_loopback() -> None:
    config = prepare_config(read_yaml("cluster.yaml"))
    lines = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    head, worker = (line for line in lines if "ray start" in line)
    assert all(line.startswith("RAY_AUTH_MODE=token ray start ") for line in (head, worker))
    options = parse_ray_start(head)
    assert (options["head"], options["num_cpus"], options["dashboard_host"]) == (True, 0, "127.0.0.1")
    assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert parse_ray_start(worker)["address"].endswith(f":{options['port']}")
    docker, mounts = config["docker"], config["file_mounts"]
    assert mounts == {"~/.ray/auth_token": "~/.ray/auth_token", "~/requirements.lock": "requirements.lock"}
    assert {"chmod 600 ~/.ray/auth_token", "cmp ~/requirements.lock /app/requirements.lock"} <= {
        line.split("  #")[0] for line in config["setup_commands"]
    }
    home = read_environment(parse_stages()["node"])["HOME"]
    run = docker_start_cmds("ubuntu", docker["image"], mounts, "c", docker["run_options"], "chestai", home, "docker")
    assert f"/~/.ray/auth_token:{home}/.ray/auth_token " in run, "the path where Ray in the container looks for it"
    assert "-e RAY_AUTH_MODE=token" in run and "--cap-drop=ALL" in run
    assert f"AWS_REGION={config['provider']['region']}" in run


def parse_stages() -> dict[str, list[tuple[str, str]]]:
    """Parse the Dockerfile into the instructions of each stage, including those of its base stages."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()))
    stages: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            origin, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            stages[name] = list(stages.get(origin, [("FROM", origin)]))
        else:
            stages[name].append((instruction, rest))
    return stages


def read_environment(stage: list[tuple[str, str]]) -> dict[str, str]:
    """Collect the environment variables that a stage sets."""
    return dict(pair.split("=", 1) for instruction, rest in stage if instruction == "ENV" for pair in shlex.split(rest))


def test_image_installs_from_lock_with_hashes_and_runs_unprivileged() -> None:
    stages = parse_stages()
    assert list(stages)[-1] == "node", "`docker build .` builds the last stage"
    for stage in stages.values():
        assert re.fullmatch(r"python:3\.11-slim-\w+", stage[0][1])
        assert {instruction for instruction, _ in stage} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER"}
        assert [rest for instruction, rest in stage if instruction == "USER"][-1] == "1000:1000"
        runs = [part for instruction, rest in stage if instruction == "RUN" for part in rest.split("&&")]
        installs = [part.split() for part in runs if "pip" in part]
        assert installs[0][-2:] == ["-r", "requirements.lock"]
        assert all({"--require-hashes", "--no-deps", "--no-cache-dir"} <= set(words) for words in installs)
        assert not [key for key in read_environment(stage) if SECRET.search(key)]
        assert read_environment(stage)["FORWARDED_ALLOW_IPS"] == "", "Serve's proxies must not trust loopback"
        assert read_environment(stage)["RAY_AUTH_MODE"] == "token" and read_environment(stage)["PYTHONPATH"] == "/app"
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--trusted-host|-i http", text)
    pinned = [line for line in re.split(r"(?<!\\)\n", (ROOT / "requirements.lock").read_text()) if line]
    assert all("==" in line and "--hash=sha256:" in line and "://" not in line for line in pinned)
    lock = (ROOT / "serve" / "ui" / "package-lock.json").read_text()
    packages = [entry for path, entry in json.loads(lock)["packages"].items() if path]
    assert packages and all(entry["integrity"].startswith("sha512-") for entry in packages) and "://" not in lock


def test_state_of_the_image_is_a_volume_wherever_it_runs() -> None:
    stage = parse_stages()["node"]
    assert read_environment(stage)["XDG_STATE_HOME"] == "/state"
    assert any("-o chestai" in rest and rest.split().count("/state") for step, rest in stage if step == "RUN")
    volumes = read_yaml("compose.yaml")["services"]["ray"]["volumes"]
    assert "state:/state" in volumes and "-v chestai-state:/state" in read_yaml("cluster.yaml")["docker"]["run_options"]


def test_image_holds_only_the_code() -> None:
    copies = [rest for instruction, rest in parse_stages()["node"] if instruction == "COPY"]
    assert copies.pop() == "--from=ui /home/chestai/ui/dist serve/ui/dist", "the readers' page, built in its own stage"
    sources = {rest.split()[0] for rest in copies}
    code = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert sources == code | {"conf", "requirements.lock"}
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    assert {line[1:] for line in patterns if line[0] == "!"} == sources


def test_compose_publishes_on_loopback_and_reads_secrets_from_environment() -> None:
    body = re.sub(r"(?m)^\s*#.*$", "", (ROOT / "compose.yaml").read_text())
    assert body.count("$") == len(re.findall(r"\$\{\w+:[?-][^}]+\}", body)), "an unset variable must not pass unnoticed"
    for name, service in read_yaml("compose.yaml")["services"].items():
        assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), f"{name}: the tag must be pinned"
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", [])), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not {"privileged", "pid", "cap_add", "devices"} & set(service), name
        assert service.get("network_mode", "service:ray") == "service:ray", f"{name}: never the host's network"
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key} must not be in the file"


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
            assert service["build"]["context"] == "." and service["build"]["target"] in parse_stages()
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {volume for volume in used if volume[0] not in "./$"} == set(compose["volumes"])
    head = parse_ray_start(shlex.join(services["ray"]["command"]))
    assert head["head"] and head["block"] and services["ray"]["environment"]["RAY_AUTH_MODE"] == "token"


def test_serve_config_deploys_known_application_with_known_keys() -> None:
    (service,) = (document["spec"] for source, document in iter_documents() if source == "rayservice.yaml: RayService")
    plain, kube = (
        ServeDeploySchema(**config)
        for config in (read_yaml("serve/deploy.yaml"), yaml.safe_load(service["serveConfigV2"]))
    )
    assert (plain.http_options.host, kube.http_options.host) == ("127.0.0.1", "0.0.0.0")
    for deployment in (plain, kube):
        (application,) = deployment.applications
        module, name = application.import_path.split(":")
        assert getattr(import_module(module), name) is build and application.name == APPLICATION
        config = conf.load(to_overrides(application.args), "serve")
        assert (deployment.http_options.request_timeout_s or 0) > config.serve.deadline_seconds
        assert config.lake.startswith("s3://") and config.tracking.uri is not None and config.state.url is not None
        assert config.serve.hosts, "the gateway's clients name a host that the endpoint cannot know"
    policies = [document["spec"] for source, document in iter_documents() if source.endswith("NetworkPolicy")]
    ports = {port["port"] for policy in policies for rule in policy["ingress"] for port in rule.get("ports", ())}
    assert kube.http_options.port in ports


@pytest.mark.parametrize(
    ("args", "message"),
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
def test_rejects_wrong_deployment_arguments(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build(args)
