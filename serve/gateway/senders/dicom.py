"""Sends a DICOM object by C-STORE (PS3.4 Annex B)."""

import ssl
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE

from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused

WARNINGS = {0xB000, 0xB006, 0xB007}  # stored, with something coerced or dropped (PS3.4 Table B.2-1)
OUT_OF_RESOURCES = range(0xA700, 0xA800)
TRANSIENT = 2  # the result of a rejection that may pass (PS3.8 Section 9.3.4)


def send(
    instance: Dataset, host: str, port: int, title: str, our_title: str, tls: ssl.SSLContext | None, timeout_s: float
) -> None:
    """Sends one object in an association of its own.

    Args:
        title, our_title: AE titles of the receiver and of the gateway.

    Raises:
        DeliveryDelayed: No connection, no answer in time, or the receiver is out of resources.
        DeliveryRefused: The receiver does not know us, does not take such objects, or refuses this one.
    """
    entity = AE(ae_title=our_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    entity.add_requested_context(instance.SOPClassUID, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    tls_arguments = None if tls is None else (tls, host)
    association = entity.associate(host, port, ae_title=title, tls_args=tls_arguments)
    if not association.is_established:
        _explain_failure(association, title)
    try:
        status = association.send_c_store(instance).get("Status")
    except ValueError as error:
        raise DeliveryRefused(f"{title} cannot take the object: {error}") from error
    finally:
        association.release()
    if status is None or status in OUT_OF_RESOURCES:
        raise DeliveryDelayed(f"{title} gave no answer" if status is None else f"{title} is out of resources")
    if status != 0 and status not in WARNINGS:
        raise DeliveryRefused(f"{title} refuses the object with status 0x{status:04X}")


def _explain_failure(association: Any, title: str) -> None:
    """Raises why there is no association."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None and answer.result != TRANSIENT:
        raise DeliveryRefused(f"{title} rejects us: {answer.reason_str}")
    if association.rejected_contexts:
        raise DeliveryRefused(f"{title} does not take {association.rejected_contexts[0].abstract_syntax.name}")
    raise DeliveryDelayed(f"no association with {title}")
