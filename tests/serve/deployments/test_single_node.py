"""One replica on one machine: HTTP and model in the process of the command; Ray only for batch jobs."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

DECODER = "chestai.imaging.decoder_process"
CONCURRENT = 24  # requests under way at shutdown


@dataclass(frozen=True)
class Command:
    """A running `python -m serve`."""

    process: subprocess.Popen[bytes]
    url: str
    key: str
    trust: ssl.SSLContext

    def infer(self, data: bytes) -> httpx.Response:
        headers = {"X-API-Key": self.key, "Content-Type": "image/png"}
        return httpx.post(f"{self.url}/infer", content=data, headers=headers, verify=self.trust, timeout=60)

    def children(self, name: str = "") -> list[psutil.Process]:
        """Returns its child processes whose command line has `name`."""
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE and name in " ".join(child.cmdline())
        ]


@pytest.fixture
def served(champion: tuple[Config, Bundle], tmp_path: Path) -> Iterator[Command]:
    """The command with HTTPS and an encrypted key file."""
    tls, port, said = (
        create_certificate(tmp_path, "alone", "open sesame", is_rsa=True),
        find_port("127.0.0.1", 0),
        tmp_path / "said",
    )
    words = ["cluster=laptop", f"lake={champion[0].lake}", f"serve.port={port}", f"serve.prefixes=[{tmp_path}]"]
    words += [f"serve.tls.certificate={tls.certificate}", f"serve.tls.key={tls.key}", "auth.requests_per_minute=null"]
    words += [f"state.url=sqlite:///{tmp_path / 'state.db'}", "state.ephemeral=true"]
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


def test_one_replica_without_a_running_ray_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    config = conf.load(["cluster=laptop"])
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    single = copy_with(config, serve=copy_with(config.serve, max_replicas=1))
    assert needs_one_replica(single)
    assert not needs_one_replica(copy_with(config, serve=copy_with(config.serve, max_replicas=2)))
    assert not needs_one_replica(copy_with(single, cluster=copy_with(single.cluster, address="auto")))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert not needs_one_replica(single)


def agrees(served: Command, version: ssl.TLSVersion, ciphers: str = "DEFAULT") -> bool:
    """Returns whether the server accepts a client with this version of TLS and these ciphers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    address = ("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=60) as plain:
        try:
            with context.wrap_socket(plain):
                return True
        except ssl.SSLError:
            return False


@pytest.mark.slow
def test_agrees_only_to_ciphers_with_forward_secrecy(served: Command) -> None:
    assert agrees(served, ssl.TLSVersion.TLSv1_3)
    for good in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"):
        assert agrees(served, ssl.TLSVersion.TLSv1_2, good), good
    for weak in ("AES128-GCM-SHA256", "AES256-SHA256", "AES128-SHA", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-SHA"):
        assert not agrees(served, ssl.TLSVersion.TLSv1_2, weak), weak


def has_done(futures: list[Future[httpx.Response]], count: int) -> bool:
    return sum(future.done() for future in futures) > count


@pytest.mark.slow
def test_recovers_from_killed_decoders_and_finishes_requests_at_shutdown(
    served: Command, champion: tuple[Config, Bundle]
) -> None:
    service = Service(served.url, served.key, champion[1], champion[0])
    found = served.infer(image(1))
    assert found.status_code == 200, found.text
    assert list(found.json()["probabilities"].values()) == pytest.approx(service.expected(image(1)), abs=1e-5)
    assert served.children() == served.children(DECODER) != [], "no Ray"
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url.replace("https", "http") + "/health/live", timeout=60)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(served.infer, image(seed)) for seed in range(60)]
        for count in (5, 15, 25):
            wait_until(partial(has_done, futures, count), 60, "responses")
            served.children(DECODER)[0].kill()
        assert [future.result().status_code for future in futures] == [200] * 60, "a file is tried again"

    children = served.children()
    with ThreadPoolExecutor(CONCURRENT) as pool:
        under_way = [pool.submit(served.infer, image(seed)) for seed in range(100, 100 + CONCURRENT)]
        wait_until(lambda: any(future.done() for future in under_way), 60, "a response")
        served.process.send_signal(signal.SIGTERM)
        late = [future for future in under_way if isinstance(future.exception(), httpx.ConnectError)]
    statuses = [future.result().status_code for future in under_way if future not in late]
    assert statuses == [200] * len(statuses) and len(statuses) >= CONCURRENT / 2, "requests that had arrived are served"
    assert served.process.wait(60) == 130
    _, left = psutil.wait_procs(children, timeout=10)
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_runs_batch_jobs_in_processes_that_end_with_it(
    served: Command, champion: tuple[Config, Bundle], tmp_path: Path
) -> None:
    """A small job is done in this way, one is cancelled, and one is under way at shutdown."""
    options: dict[str, Any] = {"headers": {"X-API-Key": served.key}, "verify": served.trust, "timeout": 120}

    def submit(name: str, count: int) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for seed in range(count):
            (folder / f"{seed}.png").write_bytes(image(1000 * count + seed))
        sent = httpx.post(f"{served.url}/batch_infer", json={"prefix": str(folder)}, **options)
        assert sent.status_code == 202, sent.text
        return f"{served.url}/jobs/{sent.json()['job_id']}"

    def read(job: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(job, **options).json()
        return found

    small = submit("small", 3)
    assert served.infer(image(1)).status_code == 200
    wait_until(lambda: read(small)["state"] in ("done", "failed"), 120, "the job")
    found = read(small)
    assert (found["state"], found["done"]) == ("done", 3), found
    assert len(Path(found["result"]["csv"]).read_text().splitlines()) == 4
    cancelled = submit("cancelled", 400)
    wait_until(lambda: read(cancelled)["state"] == "running", 60, "the job")
    assert httpx.delete(cancelled, **options).status_code < 300
    wait_until(lambda: read(cancelled)["state"] == "cancelled", 60, "the end of the job")
    submit("under way", 450)
    wait_until(lambda: served.children("pipelines.score") != [], 60, "the job")
    children = served.children()
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 130
    _, left = psutil.wait_procs(children, timeout=15)
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
