"""The installation that makes DICOM objects: the gateway and offline scoring of one lake are one device."""

import uuid
from pathlib import Path

from chestai.lake.atomic_write import atomic_write
from chestai.lake.files import read_bytes
from chestai.results.dicom.instance import Device
from chestai.results.dicom.uids import derive_uid

NAME = "ChestAI"


def load_device(file: str) -> Device:
    """This installation, whose UID is drawn once.

    Args:
        file: Keeps what was drawn: an absolute path or a URI. Its folder is made for this user alone.

    Raises:
        OSError: It can be neither read nor written.
    """
    try:
        drawn = read_bytes(file)
    except FileNotFoundError:
        if "://" not in file:
            Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(file) as part:
            part.write_text(uuid.uuid4().hex)
        drawn = read_bytes(file)  # another process may have drawn after this one
    return Device(NAME, derive_uid("device", drawn.decode()))
