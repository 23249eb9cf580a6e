"""TODO"""

from pathlib import Path

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.storage.image_store import ImageStore
from tests.serve.support.samples import image, prediction, sha


def kept_files(folder: Path) -> list[Path]:
    return sorted(one for one in (folder / "lake" / "kept").rglob("*") if one.is_file())


def fill(database: Database, kept: ImageStore, folder: Path) -> Path:
    """Two old images and a young one that are kept, and an old one that was named by its URI, which is returned."""
    given = folder / "archive.png"
    given.write_bytes(b"given")
    with database.writing() as session:
        for name, minutes in (("old", 0), ("older", -9), ("young", 61)):
            uri = kept.keep(sha(name), name.encode())
            record_prediction(session, image(name, minutes, uri=uri), prediction(name, 0.2, minutes))
        record_prediction(session, image("given", 0, uri=str(given)), prediction("given", 0.2, 0))
    return given
