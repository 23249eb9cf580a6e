"""Settings of scoring and of the endpoint."""

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from chestai.config.types import Fraction, ModelName, NonNegative, Positive, Probability, Rate, Section
from chestai.triage.rule import TriageRule


def _check_host(name: str) -> str:
    if name != "*" and not re.fullmatch(r"[0-9A-Za-z._-]+", name):
        raise ValueError("write a host name alone, without scheme and port, or '*' for any")
    return name.lower()


def _check_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError("write an IP address, or a network such as 10.0.0.0/8") from error


def _check_glob(text: str) -> str:
    if text == "???":
        raise ValueError("'???' alone means a missing value in a configuration: write another glob, such as '[!.]??'")
    return text


Glob = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]*$"), AfterValidator(_check_glob)]
HostName = Annotated[str, AfterValidator(_check_host)]
Network = Annotated[str, AfterValidator(_check_network)]


class Score(Section):
    model: ModelName
    corpus: str = "lake"  # keys with defaults are missing from the runs of earlier versions
    match: Glob | None = None
    split: str | None = None
    prefixes: tuple[str, ...] = ()
    out: str | None = None
    batch_size: Positive
    commit_seconds: Rate = 30.0
    actors: Positive | None = None
    gate: bool = True
    heatmaps: bool = False
    embeddings: bool = False
    csv: str | None
    parquet: str | None = None
    worklist: str | None = None
    gallery: str | None = None
    gallery_images: Positive = 50
    status: str | None = None


class Runtime(Section):
    engine: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    max_auroc_drop: Fraction = 0.002


class Alert(Section):
    webhook: SecretStr | None = None  # may hold a token: a stored config shows asterisks
    verdict: Literal["moderate", "drifted"] = "drifted"
    minutes: Rate = 60.0


class Modes(Section):
    overlays: bool = True
    reordering: bool = True
    flag_only: bool = False


class Tls(Section):
    certificate: str | None = None
    key: str | None = None


class Canary(Section):
    model: Positive | None = None
    share: Probability = 0.05


class Serve(Section):
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    model: ModelName = "champion"
    follow_seconds: Rate = 10.0
    gate: bool = True
    min_replicas: Positive
    max_replicas: Positive
    gpus: NonNegative = 0
    max_ongoing_requests: Positive
    max_queued_requests: Positive = 64
    deadline_seconds: Rate = 30.0
    max_upload_mb: Positive
    memory_mb: Positive = 1024
    max_files: Positive = 32
    alert: Alert = Alert()
    jobs: bool = True
    job_server: str | None = None
    prefixes: tuple[str, ...] = ()
    hosts: tuple[HostName, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    modes: Modes = Modes()
    tls: Tls = Tls()
    canary: Canary = Canary()
    shadow: Positive | None = None
    stay: bool

    @property
    def admission_slots(self) -> int:
        """Returns the admission slots of an HTTP process: images that replicas work on, plus images that may wait."""
        return self.max_ongoing_requests * self.max_replicas + self.max_queued_requests


class State(Section):
    url: str | None = None
    backlog_mb: Positive = 256
    ephemeral: bool = False
    keep_images: bool = False
    retention_days: Rate | None = None


class Jwt(Section):
    issuer: str | None = None
    audience: str = "chestai"
    secret: str | None = None
    jwks: str | None = None
    role_claim: Annotated[str, Field(min_length=1)] = "role"

    @model_validator(mode="after")
    def _require_issuer(self) -> Self:
        if (self.secret or self.jwks) and not self.issuer:
            raise ValueError("jwt.secret and jwt.jwks need jwt.issuer, the issuer of the tokens to accept")
        return self


class Auth(Section):
    required: bool = True
    requests_per_minute: Positive | None = 6000
    burst: Positive = 600
    jwt: Jwt = Jwt()


class Triage(Section):
    urgent: Annotated[float, Field(gt=0, le=1)]
    soon: Annotated[float, Field(gt=0, le=1)]
    weights: dict[str, Annotated[float, Field(gt=0, le=1)]]

    def to_rule(self) -> TriageRule:
        """Returns the triage rule with these settings."""
        return TriageRule(weights=self.weights, urgent=self.urgent, soon=self.soon)
