"""A real Orthanc with its DICOMweb plugin: a PACS that sends films and keeps results."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.gateway.site import PACS, wait_for

DICOM_PORT, HTTP_PORT = 4242, 8042
ONE_EACH = httpx.Limits(max_keepalive_connections=0)  # Orthanc closes idle connections after a second
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass
class Orthanc:
    """The running server. dicom_web: the root of its DICOMweb services."""

    client: httpx.Client

    dicom_web = f"http://127.0.0.1:{HTTP_PORT}/dicom-web"

    def post(self, path: str, **arguments: Any) -> Any:
        return self.client.post(path, **arguments).raise_for_status().json()

    def upload(self, film: bytes) -> str:
        """Stores a film, as from a modality. Returns Orthanc's ID of it."""
        return str(self.post("/instances", content=film)["ID"])

    def find_modalities(self, study: str) -> list[str]:
        """The modality of each object in a study, by QIDO-RS, sorted."""
        answer = self.client.get(f"/dicom-web/studies/{study}/instances")
        return sorted(item["00080060"]["Value"][0] for item in answer.raise_for_status().json())


@contextmanager
def run_orthanc(folder: Path, receiver_port: int, endpoint: str) -> Iterator[Orthanc]:
    """Runs Orthanc while the block runs; it knows our receiver and our endpoint by the name `chestai`.

    It listens on all addresses whatever its settings say: call it in `tests.support.network.own_network`. Skips the
    test where Debian's packages orthanc and orthanc-dicomweb are not installed.
    """
    program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin")
    if program is None or not PLUGIN.exists():
        pytest.skip("Debian's packages orthanc and orthanc-dicomweb are not installed")
    settings = {
        "Name": "PACS",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "DicomAet": PACS,
        "DicomPort": DICOM_PORT,
        "HttpPort": HTTP_PORT,
        "AuthenticationEnabled": False,
        "DicomModalities": {"chestai": ["CHESTAI", "127.0.0.1", receiver_port]},
        "DicomWeb": {"Servers": {"chestai": {"Url": f"{endpoint}/dicomweb/", "HasDelete": False}}},
    }
    file = folder / "orthanc.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings))
    with (
        (folder / "orthanc.log").open("w") as log,
        httpx.Client(base_url=f"http://127.0.0.1:{HTTP_PORT}", trust_env=False, timeout=30, limits=ONE_EACH) as client,
        subprocess.Popen([program, str(file)], stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(lambda: process.poll() is not None or _answers(client), 60)
            assert process.poll() is None, (folder / "orthanc.log").read_text()[-2000:]
            yield Orthanc(client)
        finally:
            process.terminate()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/system").status_code == 200
    except httpx.TransportError:
        return False
