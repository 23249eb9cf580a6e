"""One machine, one replica: HTTP in the process of the command itself, the model on a Ray Serve of its own."""

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.model.bundle import Bundle
from serve.deployments.preflight import find_port
from serve.deployments.single_node import needs_one_replica
from serve.deployments.tls import PASSWORD_VARIABLE
from tests.serve.support.certificates import copy_with, create_certificate
from tests.serve.support.service import Service
from tests.support.models import image
from tests.support.paths import ROOT
from tests.support.processes import wait_until

MODEL, PROXY, INGRESS = (f"ray::{name}" for name in ("ServeReplica:model:Model", "ProxyActor", "ServeReplica:chestai"))
AT_ONCE = 24  # requests under way when it is told to end


@dataclass(frozen=True)
class Command:
    """`python -m serve` that answers."""

    process: subprocess.Popen[bytes]
    url: str
    key: str
    trust: ssl.SSLContext

    def infer(self, data: bytes) -> httpx.Response:
        headers = {"X-API-Key": self.key, "Content-Type": "image/png"}
        return httpx.post(f"{self.url}/infer", content=data, headers=headers, verify=self.trust, timeout=60)

    def family(self, name: str = "") -> list[psutil.Process]:
        """Its processes whose title starts so."""
        return [
            one
            for one in psutil.Process(self.process.pid).children(recursive=True)
            if one.is_running() and "".join(one.cmdline()[:1]).startswith(name)
        ]


@pytest.fixture
def served(champion: tuple[Config, Bundle], tmp_path: Path) -> Iterator[Command]:
    """Over https, with a locked key file."""
    tls, port, said = (
        create_certificate(tmp_path, "alone", "open sesame"),
        find_port("127.0.0.1", 0),
        tmp_path / "said",
    )
    words = ["cluster=laptop", f"lake={champion[0].lake}", f"serve.port={port}"]
    words += [f"serve.tls.certificate={tls.certificate}", f"serve.tls.key={tls.key}", "auth.requests_per_minute=null"]
    words += [f"state.url=sqlite:///{tmp_path / 'state.db'}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve", *words],
            cwd=ROOT,
            env={**environment, PASSWORD_VARIABLE: "open sesame", "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "Ctrl-C stops it" in said.read_text() or process.poll() is not None, 180, "the endpoint")
        key = re.search(r"key, shown this once: (\S+)", said.read_text())
        assert key is not None, said.read_text()
        assert tls.certificate is not None
        yield Command(process, f"https://127.0.0.1:{port}", key[1], ssl.create_default_context(cafile=tls.certificate))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_one_replica_on_a_ray_of_its_own_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = conf.load(["cluster=laptop"])
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    single = copy_with(config, serve=copy_with(config.serve, max_replicas=1))
    assert needs_one_replica(single)
    assert not needs_one_replica(copy_with(config, serve=copy_with(config.serve, max_replicas=2)))
    assert not needs_one_replica(copy_with(single, cluster=copy_with(single.cluster, address="auto")))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not needs_one_replica(single)


@pytest.mark.slow
def test_it_answers_over_a_killed_replica_and_finishes_what_is_under_way(
    served: Command, champion: tuple[Config, Bundle]
) -> None:
    service = Service(served.url, served.key, champion[1], champion[0])
    found = served.infer(image(1))
    assert found.status_code == 200, found.text
    assert list(found.json()["probabilities"].values()) == pytest.approx(service.expected(image(1)), abs=1e-5)
    assert served.family(MODEL) and not served.family(PROXY) and not served.family(INGRESS), "nothing between"
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url.replace("https", "http") + "/health/live", timeout=60)

    def insist(seed: int) -> list[int]:
        seen: list[int] = []
        while not seen or (seen[-1] == 503 and len(seen) < 200):
            time.sleep(0.1 * (len(seen) > 0))
            seen.append(served.infer(image(seed)).status_code)
        return seen

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(insist, seed) for seed in range(60)]
        wait_until(lambda: sum(one.done() for one in waiting) > 10, 60, "answers")
        served.family(MODEL)[0].kill()
        assert all(one.result()[-1] == 200 for one in waiting)

    family = served.family()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        under_way = [pool.submit(served.infer, image(seed)) for seed in range(100, 100 + AT_ONCE)]
        wait_until(lambda: any(one.done() for one in under_way), 60, "an answer")
        served.process.send_signal(signal.SIGTERM)
        late = [one for one in under_way if isinstance(one.exception(), httpx.ConnectError)]
    answers = [one.result().status_code for one in under_way if one not in late]
    assert answers == [200] * len(answers) and len(answers) >= AT_ONCE / 2, "what had come is answered"
    assert served.process.wait(60) == 130
    _, left = psutil.wait_procs(family, timeout=10)
    assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]
