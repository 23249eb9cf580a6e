"""Sets of SHA-256 that fit into memory: sorted, 32 bytes each, so 320 MB for ten million, once a node."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BYTES = 32
SLICE = 100_000  # hex strings that are Python objects at a time

Digests = NDArray[np.bytes_]  # S32: sorted and without doubles where it is a set


def digests(column: pa.ChunkedArray | pa.Array) -> Digests:
    """Hex strings, none of them null, as (N,) S32 in their order."""
    parts = [
        np.frombuffer(bytes.fromhex("".join(column.slice(at, SLICE).to_pylist())), f"S{BYTES}")
        for at in range(0, len(column), SLICE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, f"S{BYTES}")


def digest(value: bytes) -> Digests:
    """One digest of 32 bytes as (1,)."""
    return np.frombuffer(value, f"S{BYTES}")


def as_set(values: Digests) -> Digests:
    """Sorted, each once."""
    return np.unique(values)


def has(known: Digests, wanted: Digests) -> NDArray[np.bool_]:
    """For each of (N,) `wanted`, in any order, whether it is in the set `known`."""
    if not len(known):
        return np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.asarray(known[at] == wanted)


def plus(known: Digests, more: Digests) -> Digests:
    """The set with some that it does not have, each given once: a copy of memory instead of sorting all anew."""
    more = np.sort(more)
    return np.insert(known, np.searchsorted(known, more), more)


def new(known: Digests, wanted: Digests) -> NDArray[np.intp]:
    """Places of the first of each of (N,) `wanted` that the set does not have, ascending."""
    _, first = np.unique(wanted, return_index=True)
    return np.sort(first[~has(known, wanted[first])])
