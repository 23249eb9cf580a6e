"""Sends one delivery in the way of its destination."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import pydicom

from chestai.config.gateway import Destination
from chestai.results.fhir.bundle import build_transaction
from chestai.results.fhir.resources import build_resources
from chestai.results.film_result import FilmResult
from chestai.results.hl7.message import build_message
from chestai.results.standard_codes import FHIR_CODES, HL7_CODES
from serve.db.database import Database
from serve.gateway.db.film_results import FilmFileMissing, load_result
from serve.gateway.db.models import DeliveryRow
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.intake.folder import Intake
from serve.gateway.senders import dicom, fhir, mllp, stow
from serve.gateway.senders.errors import DeliveryRefused
from serve.gateway.senders.peer import Peer, split_address


@dataclass(frozen=True)
class Transmission:
    """The way to one destination. language: of drafts of the impression; None for none."""

    destination: Destination
    our_title: str
    database: Database
    intake: Intake
    files: ResultFiles
    tls: ssl.SSLContext | None
    language: str | None = None

    def send(self, row: DeliveryRow) -> None:
        """Sends a delivery.

        Raises:
            DeliveryDelayed: It may arrive later.
            DeliveryRefused: It never will: the receiver refuses it, or its film or file is gone.
        """
        try:
            result = load_result(self.database, self.intake, row.film_id, row.revision)
        except FilmFileMissing as error:
            raise DeliveryRefused("the film is gone (state.retention_days)") from error
        if row.kind in ("fhir", "hl7"):
            self._send_text(row.kind, result)
        else:
            self._send_object(self.files.path(row.film_id, row.kind, result.version, row.revision))

    @property
    def peer(self) -> Peer:
        """The receiver of a destination of kind dicom."""
        to = self.destination
        return Peer.of(to, self.our_title, self.tls)

    def _send_text(self, kind: str, result: FilmResult) -> None:
        to = self.destination
        if kind == "fhir":
            bundle = build_transaction(build_resources(result, to.release, FHIR_CODES, self.language))
            fhir.send(bundle, to.url or "", to.timeout_seconds, to.token_variable, to.release)
        else:
            host, port = split_address(to.address)
            message = build_message(result, HL7_CODES, self.language)
            mllp.send(message, host, port, self.tls, to.timeout_seconds)

    def _send_object(self, path: Path) -> None:
        to = self.destination
        try:
            instance = pydicom.dcmread(path)
        except FileNotFoundError as error:
            raise DeliveryRefused("its file is gone (state.retention_days)") from error
        if to.kind == "stow":
            stow.send(instance, to.url or "", to.token_variable, to.timeout_seconds)
        else:
            dicom.send(instance, self.peer)
