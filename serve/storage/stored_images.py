"""Reads the file of a recorded image again: from the image store, its URI, or the lake."""

import hashlib
import re
from dataclasses import dataclass

import pyarrow.compute as pc

from chestai.config.schema import Config
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from serve.db.models import ImageRow
from serve.problems import ApiError
from serve.storage.image_store import ImageStore
from serve.storage.uri_reader import read_uri

SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredImages:
    """The images that the endpoint can read again. Its methods block."""

    config: Config
    images: ImageStore

    def read(self, image_id: str, row: ImageRow | None) -> bytes:
        """Returns the bytes of an image.

        Args:
            image_id: SHA-256 of the file, or an ID in gold/images.
            row: Its record; None if it has none.

        Raises:
            ApiError: 403, the URI is not allowed any more; 404, the image is unknown or was not kept, its file is
                missing, or it has changed.
        """
        if row is not None and row.uri is not None:
            return self._read_received_image(image_id, row.uri)
        path = self._find_in_lake(image_id)
        if path is not None:
            return _read_lake_file(image_id, path)
        if row is not None:
            raise ApiError(404, "image_not_kept", f"the file of image {image_id} was not kept (state.keep_images)")
        raise ApiError(404, "unknown_image", f"no image {image_id[:64]} was received, and the lake has none")

    def _read_received_image(self, image_id: str, uri: str) -> bytes:
        limits = self.config.serve
        try:
            if uri == self.images.uri(image_id):
                data = self.images.read(image_id)
            else:
                data = read_uri(uri, limits.prefixes, limits.max_upload_mb * 2**20)[1]
        except (OSError, ApiError) as error:
            if isinstance(error, ApiError) and error.problem.status == 403:
                raise
            raise _file_missing(image_id) from error
        return _check_content(image_id, data)

    def _find_in_lake(self, image_id: str) -> str | None:
        """Returns the path of an image of the newest snapshot; None if there is no such image.

        Raises:
            ApiError: 404, the image has no file.
        """
        lake = Lake(self.config.lake)
        snapshots = lake.list_snapshots()
        if not snapshots:
            return None
        is_image = pc.field("sha256" if SHA256.fullmatch(image_id) else "image_id") == image_id
        rows = lake.read(IMAGES, snapshots[-1].versions[IMAGES], columns=["path"], where=is_image)
        if rows.num_rows and rows["path"][0].as_py() is None:
            raise _file_missing(image_id)
        return str(rows["path"][0]) if rows.num_rows else None


def _read_lake_file(image_id: str, path: str) -> bytes:
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise _file_missing(image_id) from error
    return _check_content(image_id, data) if SHA256.fullmatch(image_id) else data


def _check_content(image_id: str, data: bytes) -> bytes:
    if hashlib.sha256(data).hexdigest() != image_id:
        raise ApiError(404, "image_file_missing", f"the file of image {image_id} has changed")
    return data


def _file_missing(image_id: str) -> ApiError:
    return ApiError(404, "image_file_missing", f"the file of image {image_id[:64]} is missing")
