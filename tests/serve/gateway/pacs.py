"""A small PACS on loopback: it stores the objects that it is sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage
from pynetdicom import AE, evt

OBJECTS = (ComprehensiveSRStorage, SecondaryCaptureImageStorage, SegmentationStorage)


@dataclass
class Pacs:
    """What came, in order. status: of its answers."""

    port: int = 0
    status: int = 0
    came: list[Dataset] = field(default_factory=list)

    def of_class(self, sop_class: str) -> list[Dataset]:
        return [instance for instance in self.came if instance.SOPClassUID == sop_class]

    @property
    def reports(self) -> list[Dataset]:
        return self.of_class(ComprehensiveSRStorage)

    def store(self, event: Any) -> int:
        if self.status == 0:
            self.came.append(event.dataset)
        return self.status


@contextmanager
def run_pacs(pacs: Pacs) -> Iterator[Pacs]:
    """Listens while the block runs; port 0 for a free one."""
    entity = AE(ae_title="PACS")
    for sop_class in OBJECTS:
        entity.add_supported_context(sop_class)
    server: Any = entity.start_server(
        ("127.0.0.1", pacs.port), block=False, evt_handlers=[(evt.EVT_C_STORE, pacs.store)]
    )
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        server.shutdown()
