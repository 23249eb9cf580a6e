"""Settings of scoring, of search among scored images, and of the endpoint."""

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from chestai.config.types import DicomObject, Fraction, ModelName, NonNegative, Positive, Probability, Rate, Section
from chestai.triage.rule import TriageRule

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
CALLBACK_PATH = "/session/oidc/callback"


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


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    is_secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if not is_secure or not parts.hostname or parts.port == 0:
        raise ValueError("write an https URL, or one of http on this machine")
    return text


def _check_callback(text: str) -> str:
    if urlsplit(text).path != CALLBACK_PATH or "?" in text or "#" in text:
        raise ValueError(f"write the endpoint's own address and {CALLBACK_PATH}")
    return text


Glob = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]*$"), AfterValidator(_check_glob)]
HostName = Annotated[str, AfterValidator(_check_host)]
Network = Annotated[str, AfterValidator(_check_network)]
SecureUrl = Annotated[str, AfterValidator(_check_url)]  # nobody on the way reads the codes and tokens
CallbackUrl = Annotated[SecureUrl, AfterValidator(_check_callback)]


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
    report_text: str | None = None
    dicom_out: str | None = None
    dicom_objects: Annotated[tuple[DicomObject, ...], Field(min_length=1)] = ("sr", "sc")
    fhir_out: str | None = None
    status: str | None = None

    @property
    def keeps_evidence(self) -> bool:
        """Whether the ledger needs evidence maps: to keep them, or for the DICOM objects that show them."""
        return self.heatmaps or (self.dicom_out is not None and {*self.dicom_objects} != {"sr"})


class Index(Section):
    model: ModelName = "champion"
    corpus: str = "lake"
    engine: Literal["exact", "lance"] = "exact"


class Search(Section):
    model: ModelName = "champion"
    text: str | None = None
    image: str | None = None
    image_id: str | None = None
    language: str | None = None
    count: Annotated[int, Field(ge=1, le=1000)] = 10
    labelled: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    not_called: tuple[str, ...] = ()
    bucket: Literal["urgent", "soon", "routine"] | None = None
    view: Literal["PA", "AP"] | None = None
    sex: Literal["M", "F"] | None = None
    split: Literal["train", "val", "test"] | None = None
    min_age: Annotated[int, Field(ge=0)] | None = None
    max_age: Annotated[int, Field(ge=0)] | None = None
    csv: str | None = None
    html: str | None = None


class Runtime(Section):
    engine: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["fp32", "bf16", "fp16", "int8", "fastest"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    calibration_images: Positive = 300
    max_auroc_drop: Fraction = 0.002
    max_changed_buckets: Fraction = 0.02
    max_changed_calls: Fraction = 0.02


class Alert(Section):
    webhook: SecretStr | None = None  # may hold a token: a stored config shows asterisks
    verdict: Literal["moderate", "drifted"] = "drifted"
    minutes: Rate = 60.0


class Modes(Section):
    model_config = ConfigDict(json_schema_serialization_defaults_required=True)  # answers have every field

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
    pseudonym_key: str | None = None
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


class Oidc(Section):
    client_id: Annotated[str, Field(min_length=1)] | None = None
    authorize_url: SecureUrl | None = None
    token_url: SecureUrl | None = None
    redirect_url: CallbackUrl | None = None
    client_secret: str | None = None
    scope: str = "openid"

    @model_validator(mode="after")
    def _require_urls(self) -> Self:
        if self.client_id and None in (self.authorize_url, self.token_url, self.redirect_url):
            raise ValueError("oidc.client_id needs oidc.authorize_url, oidc.token_url and oidc.redirect_url")
        return self


class BrowserSessions(Section):
    hours: Annotated[float, Field(gt=0, le=720)] = 8.0
    idle_minutes: Annotated[float, Field(ge=2)] = 30.0  # the last use is written once a minute


class Auth(Section):
    required: bool = True
    requests_per_minute: Positive | None = 6000
    burst: Positive = 600
    jwt: Jwt = Jwt()
    oidc: Oidc = Oidc()
    session: BrowserSessions = BrowserSessions()

    @model_validator(mode="after")
    def _require_keys(self) -> Self:
        if self.oidc.client_id and not (self.jwt.secret or self.jwt.jwks):
            raise ValueError("oidc.client_id needs jwt.issuer, and jwt.jwks or jwt.secret, to verify ID tokens")
        return self


class Triage(Section):
    urgent: Annotated[float, Field(gt=0, le=1)]
    soon: Annotated[float, Field(gt=0, le=1)]
    weights: dict[str, Annotated[float, Field(gt=0, le=1)]]

    def to_rule(self) -> TriageRule:
        """Returns the triage rule with these settings."""
        return TriageRule(weights=self.weights, urgent=self.urgent, soon=self.soon)
