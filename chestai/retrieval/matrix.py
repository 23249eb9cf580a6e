"""Vectors in half precision, in memory or mapped from a file, and the exact search for the nearest of them.

The index is faiss's flat scalar quantizer (Douze et al., "The Faiss library", 2024): it compares a query with every
vector. Only the flag `IO_FLAG_MMAP_IFC` maps its file; with the older `IO_FLAG_MMAP`, faiss reads a flat index into
memory.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import cast

import faiss
import numpy as np
from numpy.typing import NDArray

from chestai.lake.atomic_write import atomic_write

Mask = NDArray[np.bool_]

SLICE_ROWS = 16_384  # that are compared: fewer do not pay for a thread
DENSE = 4  # with more than 1 in 4 rows it is faster to compare all, find more, and keep those that may be found
CORES = len(os.sched_getaffinity(0))
POOL = ThreadPoolExecutor(CORES, "matrix")  # faiss lets go of Python's lock


class Matrix:
    """(N, D) vectors of length 1."""

    def __init__(self, index: faiss.IndexScalarQuantizer) -> None:
        self._index = index

    @classmethod
    def build(cls, codes: NDArray[np.float16]) -> "Matrix":
        """Copies (N, D) vectors into memory."""
        index = faiss.IndexScalarQuantizer(codes.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.add_sa_codes(np.ascontiguousarray(codes, "<f2").view(np.uint8))  # which are the half floats themselves
        return cls(index)

    @classmethod
    def map(cls, path: Path) -> "Matrix":
        """Maps a file of `save`: the kernel reads what a search needs, and gives the memory back when it is short.

        Raises:
            RuntimeError: There is no such file, or it is damaged.
        """
        return cls(cast(faiss.IndexScalarQuantizer, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)))

    def save(self, path: Path) -> None:
        """Writes a file, whole or not at all, whatever ends the process or the machine."""
        with atomic_write(str(path)) as part:
            faiss.write_index(self._index, str(part))
            with part.open("rb") as file:
                os.fsync(file.fileno())

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """D."""
        return int(self._index.d)

    def read(self, positions: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
        """The vectors at (n,) positions; None: all."""
        if positions is None:
            return np.asarray(self._index.reconstruct_n(0, len(self)), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.asarray(positions, np.int64)), np.float32)

    def find_nearest(
        self, vector: NDArray[np.float32], count: int, mask: Mask | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Finds the vectors with the greatest products.

        Args:
            vector: (D,).
            mask: (N,), which vectors may be found; None: any.

        Returns:
            Positions and products, the greatest first; at most `count`, fewer if fewer may be found.
        """
        count = min(count, len(self))
        if not count:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        compared = len(self) if mask is None else int(np.count_nonzero(mask))
        if mask is not None and compared > len(self) // DENSE:
            positions, products = self.find_nearest(vector, 2 * count * len(self) // compared)
            passing = mask[positions]
            if np.count_nonzero(passing) >= count:
                return positions[passing][:count], products[passing][:count]
        query = np.asarray(vector, np.float32)[None]
        ends = np.linspace(0, len(self), max(1, min(CORES, compared // SLICE_ROWS)) + 1).astype(int)
        found = list(POOL.map(lambda rows: self._search(query, count, slice(*rows), mask), pairwise(ends)))
        positions, products = (np.concatenate(parts) for parts in zip(*found, strict=True))
        best = np.argsort(-products, kind="stable")[:count]
        return positions[best], products[best]

    def _search(
        self, query: NDArray[np.float32], count: int, rows: slice, mask: Mask | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best of some rows."""
        faiss.omp_set_num_threads(1)  # of this thread: faiss shares out queries, and this is one
        allowed = np.zeros(len(self), np.bool_)
        allowed[rows] = True if mask is None else mask[rows]
        bits = np.packbits(allowed, bitorder="little")  # must live as long as the search
        parameters = faiss.SearchParameters()
        parameters.sel = faiss.IDSelectorBitmap(len(self), faiss.swig_ptr(bits))
        products, positions = self._index.search(query, count, params=parameters)
        found = positions[0] >= 0
        return positions[0][found], products[0][found]
