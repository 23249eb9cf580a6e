"""The DICOM receiver: C-ECHO, C-STORE of films, and storage commitment, for named callers (PS3.4 Annexes A, B, J).

A film is acknowledged once it is on disk (`serve.gateway.intake.folder`) and in the audit. Scoring comes later.
"""

import logging
import ssl
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from chestai.config.gateway import DicomListener, GatewayTls
from chestai.errors import UserError
from chestai.results.film import film_id_of
from serve.gateway.commitment.codes import COMMITMENT
from serve.gateway.commitment.provider import Commitments
from serve.gateway.commitment.reports import CommitmentReports
from serve.gateway.intake.accepted import FILMS, SYNTAXES
from serve.gateway.intake.folder import Intake
from serve.gateway.priors.errors import NotAskedFor
from serve.gateway.priors.retrieval import Retrievals

log = logging.getLogger("chestai.gateway")

VERIFICATION = UID("1.2.840.10008.1.1")  # C-ECHO
SUCCESS, OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000  # PS3.4 Table B.2-1
NOT_AUTHORISED = 0x0124  # PS3.7 Annex C
IDLE_S, NEGOTIATION_S = 60, 10
PDU_BYTES = 2**17  # a film of 10 MB comes in 80 parts instead of 640

Noted = Callable[[str, str, bool], None]  # called with the caller's AE title, the film's ID and whether it is new


class Receiver:
    """Listens until `close`."""

    def __init__(
        self,
        settings: DicomListener,
        intake: Intake,
        noted: Noted,
        reports: CommitmentReports | None = None,
        retrievals: Retrievals | None = None,
    ) -> None:
        """
        Args:
            noted: Writes the audit of a film before it is acknowledged; what it raises refuses the film for now.
            reports: Takes the answers of destinations that commit themselves, which may then call as well.
            retrievals: Knows which films come at our own request; None if no archive is asked for any.

        Raises:
            UserError: Nobody may connect, the port is taken, or a TLS file cannot be used.
        """
        if not settings.callers:
            raise UserError("gateway.dicom.callers is empty: name the AE titles that may send films")
        self._callers, self._intake, self._noted = settings.callers, intake, noted
        self._max_bytes = settings.max_film_mb * 2**20
        self._retrievals = retrievals
        self._commitments = Commitments(settings.ae_title, settings.commitment, intake)
        self._received: dict[Any, int] = {}  # association -> bytes of its current message
        entity = _make_entity(settings, {*settings.callers, *(reports.titles if reports else ())})
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_N_ACTION, self._commitments.request),
            (evt.EVT_DATA_RECV, self._count),
            *([(evt.EVT_N_EVENT_REPORT, reports.take)] if reports else []),
            (evt.EVT_DIMSE_RECV, self._end_message),
            (evt.EVT_CONN_CLOSE, self._end_message),
            (evt.EVT_REJECTED, _log_rejection),
            (evt.EVT_ACCEPTED, _log_refused_contexts),
        ]
        try:
            server = entity.start_server(
                (settings.host, settings.port),
                block=False,
                ssl_context=make_server_tls(settings.tls),
                evt_handlers=handlers,
            )
        except OSError as error:
            raise UserError(f"gateway.dicom.port={settings.port} cannot be used: {error.strerror}") from error
        assert isinstance(server, ThreadedAssociationServer)
        self._server = server

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops listening, and ends associations."""
        self._server.shutdown()
        self._commitments.close()

    def _store(self, event: Any) -> int:
        instance, caller = str(event.request.AffectedSOPInstanceUID), str(event.assoc.requestor.ae_title)
        if caller not in self._callers:
            log.warning("refused a film of %r, which may answer our commitment requests alone", caller)
            return NOT_AUTHORISED
        if event.request.DataSet.getbuffer().nbytes > self._max_bytes:  # it came whole before the abort
            return OUT_OF_RESOURCES
        try:
            data, originator = event.encoded_dataset(), event.request.MoveOriginatorApplicationEntityTitle
            retrieval = None if self._retrievals is None else self._retrievals.find(originator, caller, data)
            is_new = self._intake.add(instance, data, prior=retrieval is not None)
        except NotAskedFor as error:
            log.warning("a film of %r was refused: %s", caller, error)
            return NOT_AUTHORISED
        except OSError as error:
            log.error("a film could not be stored: %s", error.strerror)
            return OUT_OF_RESOURCES
        except Exception as error:
            log.warning("a film was refused: its data set cannot be written as a file (%s)", type(error).__name__)
            return NOT_UNDERSTOOD
        try:
            if retrieval is None:
                self._noted(caller, film_id_of(instance), is_new)
            else:
                retrieval.note(instance, is_new)
        except Exception as error:  # the film stays, and counts as received when it is sent again
            log.error("a film was not acknowledged, because the audit could not be written: %s", type(error).__name__)
            return OUT_OF_RESOURCES
        return SUCCESS

    def _count(self, event: Any) -> None:
        """Ends an association whose message is larger than any film may be."""
        before = self._received.get(event.assoc, 0)
        self._received[event.assoc] = before + len(event.data)
        if before <= self._max_bytes < before + len(event.data):
            log.warning("an association was aborted: a film of more than %d MiB", self._max_bytes // 2**20)
            event.assoc.abort()

    def _end_message(self, event: Any) -> None:
        self._received.pop(event.assoc, None)


def _make_entity(settings: DicomListener, callers: set[str]) -> AE:
    """What we take, and from whom."""
    entity = AE(ae_title=settings.ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = [*callers]
    entity.maximum_associations = settings.max_associations
    entity.network_timeout, entity.acse_timeout, entity.dimse_timeout = IDLE_S, NEGOTIATION_S, IDLE_S
    entity.maximum_pdu_size = PDU_BYTES
    entity.add_supported_context(VERIFICATION)
    entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    for sop_class in FILMS:
        entity.add_supported_context(sop_class, [*SYNTAXES])
    return entity


def _log_rejection(event: Any) -> None:
    requestor = event.assoc.requestor
    log.warning("rejected an association of %r for %r", requestor.ae_title, requestor.primitive.called_ae_title)


def _log_refused_contexts(event: Any) -> None:
    for context in event.assoc.rejected_contexts:
        log.warning("refused %s of %r", context.abstract_syntax.name, event.assoc.requestor.ae_title)


def make_server_tls(settings: GatewayTls) -> ssl.SSLContext | None:
    """The TLS of a listener; None without a certificate. With an authority, callers need a certificate of it.

    Raises:
        UserError: A file cannot be used.
    """
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with _named("gateway.dicom.tls.certificate and key"):
        context.load_cert_chain(Path(settings.certificate).expanduser(), Path(settings.key).expanduser())
    if settings.authority is not None:
        with _named("gateway.dicom.tls.authority"):
            context.load_verify_locations(Path(settings.authority).expanduser())
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def _named(key: str) -> Any:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"{key} cannot be used: {error.strerror or error}") from error
