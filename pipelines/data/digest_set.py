"""Sorted sets of SHA-256 digests that fit into memory: 32 bytes each, 320 MB for ten million, once per node."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DIGEST_BYTES = 32
HEX_ROWS_PER_SLICE = 100_000  # hex strings that are Python objects at a time

Digests = NDArray[np.bytes_]  # S32; a set is sorted and has no duplicates


def parse_digests(column: pa.ChunkedArray | pa.Array) -> Digests:
    """Return hex strings, none of them null, as (N,) S32 in their order."""
    parts = [
        np.frombuffer(bytes.fromhex("".join(column.slice(at, HEX_ROWS_PER_SLICE).to_pylist())), f"S{DIGEST_BYTES}")
        for at in range(0, len(column), HEX_ROWS_PER_SLICE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, f"S{DIGEST_BYTES}")


def make_digest(value: bytes) -> Digests:
    """Return one digest of 32 bytes as (1,)."""
    return np.frombuffer(value, f"S{DIGEST_BYTES}")


def make_set(values: Digests) -> Digests:
    """Sort digests and drop duplicates."""
    return np.unique(values)


def contains(digest_set: Digests, values: Digests) -> NDArray[np.bool_]:
    """Return for each of (N,) values, in any order, whether it is in the set."""
    if not len(digest_set):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(digest_set, values), len(digest_set) - 1)
    return np.asarray(digest_set[at] == values)


def insert(digest_set: Digests, values: Digests) -> Digests:
    """Return a set with added values that it does not have, each once: copies memory instead of sorting all again."""
    values = np.sort(values)
    return np.insert(digest_set, np.searchsorted(digest_set, values), values)


def find_new(digest_set: Digests, values: Digests) -> NDArray[np.intp]:
    """Return the index of the first occurrence of each of (N,) values that the set does not have, ascending."""
    _, first = np.unique(values, return_index=True)
    return np.sort(first[~contains(digest_set, values[first])])
