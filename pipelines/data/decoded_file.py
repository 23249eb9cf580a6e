"""One file on its way to the network: read, hashed, decoded and resized, or the reason why not. Needs no Ray."""

import hashlib
from collections.abc import Callable

import pyarrow as pa

from chestai.imaging.errors import Unreadable
from chestai.imaging.preprocess import Grey
from chestai.lake.files import explain_unreadable, read_bytes
from chestai.lake.schemas import FILE_MISSING
from chestai.monitoring.ood_detector import OodDetector
from pipelines.data.digest_set import Digests, contains, make_digest

MAX_FILE_BYTES = 2**30  # of a file; the largest image that `pixels` takes is far smaller, whatever its format
CRASHES_READER = "crashes_reader"  # the reason of a file that kills the Ray task that reads it

# A file that was read. row: its index in the corpus. pixels: null if it could not be read or its content is scored
# already. sha256: null if its bytes could not be read. not_scored: null, or one of `chestai.imaging.errors.REASONS`,
# `chestai.monitoring.ood_detector.REASONS`, FILE_MISSING or CRASHES_READER. detail: for a person.
DECODED_FILE = pa.schema(
    {
        "row": pa.int64(),
        "sha256": pa.string(),
        "not_scored": pa.string(),
        "detail": pa.string(),
        "pixels": pa.binary(),
    }
)


def read_file(
    path: str, length: int | None, load: Callable[[bytes], Grey], scored: Digests, detector: OodDetector | None
) -> dict[str, object]:
    """Reads one file into a row of `DECODED_FILE`, without `row`.

    Args:
        length: Bytes, if known.
        load: Decodes and resizes, as `chestai.imaging.preprocess.load`.
        scored: Contents that need no decoding.
        detector: Rejects what is not a chest radiograph; None: nothing is rejected.
    """
    if length is not None and length > MAX_FILE_BYTES:
        return {"not_scored": "too_large", "detail": f"{length} bytes; the limit is {MAX_FILE_BYTES}"}
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:  # Arrow raises ValueError for a name that makes no URI
        return {"not_scored": FILE_MISSING, "detail": explain_unreadable(path, error)}
    sha256 = hashlib.sha256(data)
    read: dict[str, object] = {"sha256": sha256.hexdigest()}
    if contains(scored, make_digest(sha256.digest()))[0]:
        return read
    try:
        square = load(data)
        rejection = None if detector is None else detector.check(square)
        if rejection is not None:
            return {**read, "not_scored": rejection.reason, "detail": rejection.detail}
        return {**read, "pixels": square.tobytes()}
    except Unreadable as error:
        return {**read, "not_scored": error.reason, "detail": error.detail}
    except Exception as error:  # of a decoder: one file must not stop millions
        return {**read, "not_scored": "undecodable", "detail": f"{type(error).__name__}: {error}"}
