"""The DICOM application entity at the other end, and associations with it."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from pynetdicom import AE, build_role

from chestai.config.gateway import Destination, Priors
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused

TRANSIENT = 2  # the result of a rejection that may pass (PS3.8 Section 9.3.4)


@dataclass(frozen=True)
class Peer:
    """Whom we call, and how. title, our_title: AE titles of the other end and of the gateway."""

    host: str
    port: int
    title: str
    our_title: str
    tls: ssl.SSLContext | None
    timeout_s: float

    @classmethod
    def of(cls, settings: Destination | Priors, our_title: str, tls: ssl.SSLContext | None) -> Self:
        """The one that settings of kind dicom name."""
        host, port = split_address(settings.address)
        return cls(host, port, settings.ae_title or "", our_title, tls, settings.timeout_seconds)

    @contextmanager
    def associate(self, sop_class: str, syntaxes: Sequence[str], provides: bool = False) -> Iterator[Any]:
        """Yields an association for one SOP class, which ends with the block.

        Args:
            provides: Whether we provide the service although we call (PS3.7 Annex D.3.3.4).

        Raises:
            DeliveryDelayed: There is no connection.
            DeliveryRefused: The other end does not know us, or does not take the class.
        """
        entity = AE(ae_title=self.our_title)
        entity.acse_timeout = entity.dimse_timeout = self.timeout_s
        entity.network_timeout = entity.connection_timeout = self.timeout_s
        entity.add_requested_context(sop_class, [*syntaxes])
        tls = None if self.tls is None else (self.tls, self.host)
        roles: list[Any] | None = [build_role(sop_class, scp_role=True)] if provides else None
        association = entity.associate(self.host, self.port, ae_title=self.title, ext_neg=roles, tls_args=tls)
        if not association.is_established:
            raise self._explain(association)
        try:
            yield association
        finally:
            association.release()

    def _explain(self, association: Any) -> DeliveryDelayed | DeliveryRefused:
        """Why there is no association."""
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None and answer.result != TRANSIENT:
            return DeliveryRefused(f"{self.title} rejects us: {answer.reason_str}")
        if association.rejected_contexts:
            return DeliveryRefused(
                f"{self.title} does not take {association.rejected_contexts[0].abstract_syntax.name}"
            )
        return DeliveryDelayed(f"no association with {self.title}")


def split_address(address: str | None) -> tuple[str, int]:
    """The host, without the brackets of IPv6, and the port of `host:port`."""
    host, _, port = (address or "").rpartition(":")
    return host.strip("[]"), int(port)
