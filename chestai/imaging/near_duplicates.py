"""Find images that are copies of another one, re-encoded or resized, by their thumbnails.

Two images are near-duplicates if the grey levels of their thumbnails correlate. The distance of two standardised
thumbnails is sqrt(2 - 2 correlation), so copies lie close together in space, and leading principal components bring
nothing further apart: a k-d tree over them (Bentley 1975) finds all candidates without comparing every pair.

On 233 originals of ChestX-ray14, copies (JPEG of quality 40 to 90, 128 to 2048 pixels, brighter) correlate by 0.9973 or
more with their original, and different films by 0.968 or less. A hash of the signs of neighbouring differences does
not separate them: copies differ in up to 20 of 256 bits, and different films in 17 or more.
"""

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 12  # of the thumbnails: more make the tree slower, fewer let more candidates through
CANDIDATES = 8  # the nearest in the leading components, of which the nearest in all is taken
BLOCK = 4096  # images compared at once

Vectors = NDArray[np.float32]


def standardise(thumbnails: NDArray[np.uint8]) -> Vectors:
    """Turn (N, P) thumbnails into vectors of mean 0 and length 1, whose products are correlations.

    A thumbnail of one grey level becomes zeros, which correlate with nothing.
    """
    vectors = thumbnails.astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def find_copies(
    vectors: Vectors, originals: NDArray[np.bool_], correlation: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Find the images outside `originals` that have a near-duplicate in it.

    Args:
        vectors: (N, P), from `standardise`.
        originals: (N,), the images to be found again.
        correlation: From which on two images are near-duplicates, -1 to 1.

    Returns:
        The copies, for each the original that correlates best, both as positions in `vectors`; and the correlation.
    """
    from scipy.spatial import cKDTree  # slow to load

    known, asked = np.flatnonzero(originals), np.flatnonzero(~originals & vectors.any(axis=1))
    known = known[vectors[known].any(axis=1)]
    if not len(known) or not len(asked):
        return asked[:0], asked[:0], np.zeros(0)
    leading = vectors @ _find_components(vectors)
    radius = float(np.sqrt(2 - 2 * correlation)) + 1e-4  # float32 rounds
    count = min(CANDIDATES, len(known))
    _, found = cKDTree(leading[known]).query(leading[asked], count, distance_upper_bound=radius, workers=-1)
    found = found.reshape(len(asked), count)
    products = np.full(found.shape, -2.0)
    rows, ranks = np.nonzero(found < len(known))  # the tree says len(known) where it found nothing
    for start in range(0, len(rows), BLOCK):
        row, rank = rows[start : start + BLOCK], ranks[start : start + BLOCK]
        products[row, rank] = np.einsum("np,np->n", vectors[asked[row]], vectors[known[found[row, rank]]])
    nearest = np.take_along_axis(found, products.argmax(axis=1)[:, None], axis=1)[:, 0]
    value = products.max(axis=1)
    copies = value >= correlation
    return asked[copies], known[nearest[copies]], value[copies]


def _find_components(vectors: Vectors) -> Vectors:
    """The leading principal components as columns, (P, `COMPONENTS`)."""
    centred = vectors - vectors.mean(axis=0)
    _, components = np.linalg.eigh(centred.T @ centred)
    leading: Vectors = components[:, -COMPONENTS:]
    return leading
