"""An S3 server on loopback, in its own process, that checks the signature of every request."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ALLOW_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@dataclass(frozen=True)
class S3:
    """A running server with one bucket and one user.

    Attributes:
        bucket: Name of the bucket.
        key_id, secret: Credentials of the user.
        recording: File to which the server writes the requests that it records.
    """

    url: str
    bucket: str
    key_id: str
    secret: str
    recording: Path

    @property
    def env(self) -> dict[str, str]:
        """This process's environment with the variables of this server, and no others of AWS."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return {
            **plain,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def client(self, service: str = "s3") -> Any:
        """Make a boto3 client of the server."""
        keys = {"aws_access_key_id": self.key_id, "aws_secret_access_key": self.secret}
        direct = Config(proxies={})
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", config=direct, **keys)

    def upload(self, folder: Path, prefix: str) -> None:
        """Upload every file below a folder to the bucket."""
        client = self.client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), self.bucket, f"{prefix}/{path.relative_to(folder)}")

    def keys(self, prefix: str = "") -> list[str]:
        """List all keys with a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    @contextlib.contextmanager
    def record_requests(self) -> Iterator[list[dict[str, Any]]]:
        """Yield a list that receives the requests of the block (method, url, headers) when it ends."""
        requests: list[dict[str, Any]] = []
        _post(f"{self.url}/moto-api/recorder/start-recording")
        yield requests
        _post(f"{self.url}/moto-api/recorder/stop-recording")
        requests += map(json.loads, self.recording.read_text().splitlines())


@contextlib.contextmanager
def start_s3_server(folder: Path, bucket: str) -> Iterator[S3]:
    """Run the server during the block, with its files in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, recording = f"http://127.0.0.1:{port}", folder / "requests.jsonl"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "MOTO_RECORDER_FILEPATH": str(recording)}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for_port(port, process)
        bootstrap = S3(url, bucket, "bootstrap", "unknown", recording)
        bootstrap.client().create_bucket(Bucket=bucket)
        iam = bootstrap.client("iam")
        iam.create_user(UserName="chestai")
        iam.put_user_policy(UserName="chestai", PolicyName="all", PolicyDocument=json.dumps(ALLOW_ALL))
        key = iam.create_access_key(UserName="chestai")["AccessKey"]
        _post(f"{url}/moto-api/reset-auth", b"0")  # from now on the server checks keys and signatures
        yield S3(url, bucket, key["AccessKeyId"], key["SecretAccessKey"], recording)
    finally:
        process.terminate()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise RuntimeError("the S3 server did not start; its server.log says why")


def _post(url: str, body: bytes = b"") -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(urllib.request.Request(url, body, {"Content-Type": "text/plain"})).close()
