"""Sends a DICOM object by C-STORE (PS3.4 Annex B)."""

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.peer import Peer

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
WARNINGS = {0xB000, 0xB006, 0xB007}  # stored, with something coerced or dropped (PS3.4 Table B.2-1)
OUT_OF_RESOURCES = range(0xA700, 0xA800)


def send(instance: Dataset, peer: Peer) -> None:
    """Sends one object in an association of its own.

    Raises:
        DeliveryDelayed: No connection, no answer in time, or the receiver is out of resources.
        DeliveryRefused: The receiver does not know us, does not take such objects, or refuses this one.
    """
    with peer.associate(instance.SOPClassUID, SYNTAXES) as association:
        try:
            status = association.send_c_store(instance).get("Status")
        except ValueError as error:
            raise DeliveryRefused(f"{peer.title} cannot take the object: {error}") from error
    if status is None or status in OUT_OF_RESOURCES:
        raise DeliveryDelayed(f"{peer.title} gave no answer" if status is None else f"{peer.title} is out of resources")
    if status != 0 and status not in WARNINGS:
        raise DeliveryRefused(f"{peer.title} refuses the object with status 0x{status:04X}")
