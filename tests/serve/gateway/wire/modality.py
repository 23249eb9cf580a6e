"""`python -m tests.serve.gateway.wire.modality PORT FILMS`: sends films of noise, and prints the UIDs acknowledged."""

import sys

import numpy as np
from pydicom import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from tests.support.dicom import header

ROWS, COLUMNS = 2500, 2000  # at 16 bits 10 MB


def send(port: int, count: int) -> list[str]:
    """Sends films in one association. Returns the SOP Instance UIDs of those that were acknowledged."""
    film = header(np.random.default_rng().integers(0, 2**16, (ROWS, COLUMNS), np.uint16), 16)
    entity = AE(ae_title="MODALITY")
    entity.add_requested_context(DX, [ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", port, ae_title="CHESTAI")
    acknowledged = []
    for _ in range(count):
        one = Dataset(film)
        one.file_meta, one.SOPInstanceUID = film.file_meta, generate_uid()
        if association.send_c_store(one).get("Status") == 0:
            acknowledged.append(str(one.SOPInstanceUID))
    association.release()
    return acknowledged


if __name__ == "__main__":
    print("\n".join(send(*map(int, sys.argv[1:]))))
