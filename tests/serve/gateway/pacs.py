"""A small PACS on loopback: it stores the objects that it is sent."""

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage
from pynetdicom import AE, build_role, evt

from serve.gateway.commitment.codes import COMMITMENT, INSTANCE

OBJECTS = (ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage)


@dataclass
class Pacs:
    """What came, in order. status: of its answers. requests: for storage commitment."""

    port: int = 0
    status: int = 0
    came: list[Dataset] = field(default_factory=list)
    requests: "queue.Queue[Dataset]" = field(default_factory=queue.Queue)

    def of_class(self, sop_class: str) -> list[Dataset]:
        return [instance for instance in self.came if instance.SOPClassUID == sop_class]

    @property
    def reports(self) -> list[Dataset]:
        return self.of_class(ComprehensiveSRStorage)

    def store(self, event: Any) -> int:
        if self.status == 0:
            self.came.append(event.dataset)
        return self.status

    def request(self, event: Any) -> tuple[int, None]:
        self.requests.put(event.action_information)
        return 0, None


def report_commitment(port: int, request: Dataset, kept: Sequence[str], title: str = "PACS") -> int | None:
    """Answers a commitment request: what it keeps, as SOP Instance UIDs; the others it misses. Returns the status."""
    items = request.ReferencedSOPSequence
    report = Dataset()
    report.TransactionUID = request.TransactionUID
    report.ReferencedSOPSequence = [item for item in items if item.ReferencedSOPInstanceUID in kept]
    report.FailedSOPSequence = [item for item in items if item.ReferencedSOPInstanceUID not in kept]
    for item in report.FailedSOPSequence:
        item.FailureReason = 0x0112
    entity = AE(ae_title=title)
    entity.add_requested_context(COMMITMENT)
    role = build_role(COMMITMENT, scp_role=True)
    association = entity.associate("127.0.0.1", port, ae_title="CHESTAI", ext_neg=[role])
    assert association.is_established
    status, _ = association.send_n_event_report(report, 2 if report.FailedSOPSequence else 1, COMMITMENT, INSTANCE)
    association.release()
    found: int | None = status.get("Status")
    return found


@contextmanager
def run_pacs(pacs: Pacs) -> Iterator[Pacs]:
    """Listens while the block runs; port 0 for a free one."""
    entity = AE(ae_title="PACS")
    for sop_class in OBJECTS:
        entity.add_supported_context(sop_class)
    entity.add_supported_context(COMMITMENT)
    server: Any = entity.start_server(
        ("127.0.0.1", pacs.port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, pacs.store), (evt.EVT_N_ACTION, pacs.request)],
    )
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()
