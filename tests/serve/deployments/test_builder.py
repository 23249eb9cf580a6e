"""`serve deploy` on a running cluster with a token: the file of this repository, with the lake of the test."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
import yaml

from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.training.register import register
from serve.auth.bootstrap import add_first_admin
from serve.db.database import Database, database_url
from tests.support.models import SIZE, image, make_bundle
from tests.support.paths import ROOT
from tests.support.processes import free_port, job_server, wait_for_job_server, wait_until

pytestmark = pytest.mark.slow

SERVE = str(Path(sys.executable).parent / "serve")


def test_serve_deploys_and_updates_the_application(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = conf.load(["cluster=laptop", f"lake={tmp_path / 'lake'}"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(make_bundle(), registry))
        register(make_bundle(seed=6), registry)
    database = Database(database_url(config))
    database.migrate()
    key = add_first_admin(database)
    assert key is not None
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as the image of the nodes has it
    port = free_port()
    with job_server(tmp_path_factory.mktemp("j")) as env:
        wait_for_job_server(env)

        def deploy(**more: object) -> None:
            wanted: dict[str, Any] = yaml.safe_load((ROOT / "serve" / "deploy.yaml").read_text())
            wanted["http_options"]["port"] = port
            wanted["applications"][0]["args"] = {"cluster": "laptop", "lake": config.lake, **more}
            (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(wanted))
            variables = {**env, "RAY_DASHBOARD_ADDRESS": env["RAY_ADDRESS"]}
            command = [SERVE, "deploy", str(tmp_path / "deploy.yaml")]
            result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout + result.stderr

        def request(path: str, **options: Any) -> dict[str, Any]:
            try:
                headers = {"X-API-Key": key, "Content-Type": "image/png"}
                response = httpx.request(url=f"http://127.0.0.1:{port}{path}", headers=headers, timeout=60, **options)
            except httpx.TransportError:
                return {}
            found: dict[str, Any] = response.json() if response.status_code == 200 else {}
            return found

        deploy()
        wait_until(lambda: request("/health/ready", method="GET"), 120, "the endpoint")
        response = request("/infer", method="POST", content=image(1))
        expected = make_bundle().predict([preprocess.load(image(1), SIZE)]).probabilities[0]
        assert list(response["probabilities"].values()) == pytest.approx(list(expected), abs=1e-5)
        deploy(**{"serve.model": 2})
        wait_until(
            lambda: request("/infer", method="POST", content=image(1))["model"]["version"] == 2, 120, "version 2"
        )
