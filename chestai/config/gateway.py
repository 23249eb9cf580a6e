"""Settings of the gateway to a hospital's systems: films in from a PACS, results back into it."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from chestai.config.serving import LOOPBACK, SecureUrl
from chestai.config.types import DicomObject, Positive, Rate, Section

Port = Annotated[int, Field(ge=0, le=65535)]


def _check_ae_title(text: str) -> str:
    """1 to 16 characters of ASCII, none of them a backslash or a control character (PS3.5 Section 6.2)."""
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", text) or text != text.strip(" ") or not text:
        raise ValueError("write an AE title: 1 to 16 ASCII characters, no backslash, no blanks at its ends")
    return text


def _check_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("write host:port")
    return text


def _check_peer(what: str, by_url: bool, peer: "Destination | Priors") -> None:
    """Raises ValueError: The address does not suit the kind, or patients are named to another machine without TLS."""
    if by_url and (peer.url is None or peer.address is not None):
        raise ValueError(f"{what} of kind {peer.kind} has a url, and no address")
    if not by_url and (peer.address is None or peer.url is not None):
        raise ValueError(f"{what} of kind {peer.kind} has an address, host:port, and no url")
    if peer.kind == "dicom" and peer.ae_title is None:
        raise ValueError(f"{what} of kind dicom has the ae_title of the other side")
    if not peer.tls and not by_url and peer.address and peer.address.rpartition(":")[0] not in LOOPBACK:
        raise ValueError(f"{what} on another machine needs tls=true: what goes there names patients")


NONE_IS_EMPTY = BeforeValidator(lambda value: {} if value is None else value)  # Hydra merges into mappings

AeTitle = Annotated[str, AfterValidator(_check_ae_title)]
Address = Annotated[str, AfterValidator(_check_address)]


class GatewayTls(Section):
    certificate: str | None = None
    key: str | None = None
    authority: str | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls.certificate and tls.key go together")
        return self


class DicomListener(Section):
    host: str = "127.0.0.1"
    port: Port = 11112
    ae_title: AeTitle = "CHESTAI"
    callers: tuple[AeTitle, ...] = ()
    commitment: Annotated[dict[AeTitle, Address], NONE_IS_EMPTY] = Field(default_factory=dict)
    max_associations: Positive = 16
    max_film_mb: Positive = 128
    tls: GatewayTls = GatewayTls()

    @model_validator(mode="after")
    def _require_tls_key(self) -> Self:
        if self.tls.authority is not None and self.tls.certificate is None:
            raise ValueError("dicom.tls.authority, which checks callers, needs dicom.tls.certificate and dicom.tls.key")
        return self


class Destination(Section):
    """Where results go. `kind` says how, and which of the other keys count."""

    kind: Literal["dicom", "stow", "fhir", "hl7"]
    address: Address | None = None
    url: SecureUrl | None = None
    ae_title: AeTitle | None = None
    objects: tuple[DicomObject, ...] = ("sr", "sc")
    commitment: bool = False
    token_variable: str | None = None
    tls: bool = False
    tls_authority: str | None = None
    release: Literal["R4", "R5"] = "R4"
    timeout_seconds: Rate = 30.0

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        _check_peer("a destination", self.kind in ("stow", "fhir"), self)
        if self.kind != "dicom" and self.commitment:
            raise ValueError(f"a destination of kind {self.kind} cannot commit itself: only one of kind dicom can")
        return self


class Priors(Section):
    """The archive that is asked for a patient's earlier films. `kind` says how, and which of the other keys count."""

    kind: Literal["dicom", "dicomweb"]
    address: Address | None = None
    url: SecureUrl | None = None
    ae_title: AeTitle | None = None
    token_variable: str | None = None
    tls: bool = False
    tls_authority: str | None = None
    studies: Positive = 3
    timeout_seconds: Rate = 30.0

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        _check_peer("an archive", self.kind == "dicomweb", self)
        return self


class Gateway(Section):
    folder: str | None = None
    endpoint: SecureUrl = "http://127.0.0.1:8000"
    key: str | None = None
    stow: bool = False
    fhir: bool = False
    dicom: DicomListener = DicomListener()
    destinations: Annotated[dict[str, Destination], NONE_IS_EMPTY] = Field(default_factory=dict)
    priors: Priors | None = None
    retry_seconds: Rate = 5.0
    max_retry_seconds: Rate = 900.0
    give_up_hours: Rate = 72.0
