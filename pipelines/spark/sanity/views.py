"""Views by pixels beside views by tags.

A logistic regression on thumbnails learns the tags of four fifths of the patients and is asked about the other fifth,
five times. So what it says about an image never comes from that image's own tag or patient.
"""

import numpy as np
from numpy.typing import NDArray

from chestai.config.schema import Sanity
from chestai.imaging.thumbnail import SIDE
from chestai.labels.demographics import LATERAL
from chestai.lake.remark import Remark
from pipelines.spark.sanity.films import Films
from pipelines.spark.sanity.share import EXAMPLES

FOLDS = 5
MAX_TAUGHT = 20_000  # images of a fit
PENALTY = 1.0  # scikit-learn's C
SURE = 0.9  # probability from which on the pixels speak for a view
Probabilities = NDArray[np.float64]


def compare_views(films: Films, limits: Sanity) -> list[Remark]:
    """Return how well pixels and tags agree: a warning if more images than the limit allows look like another view.

    Nothing is said unless `view_count` images are tagged frontal, and as many lateral.
    """
    view = films.facts["view"]
    lateral, tagged = view.eq(LATERAL).to_numpy(bool), view.notna().to_numpy(bool)
    if min(lateral.sum(), (tagged & ~lateral).sum()) < limits.view_count:
        return []
    looks = estimate_laterality(films, lateral, tagged)
    against = np.where(lateral, 1 - looks, looks)  # how sure the pixels are that the tag is wrong
    wrong = np.flatnonzero(tagged & (against >= SURE))
    hidden = np.flatnonzero(~tagged & (looks >= SURE))
    agreement = float((against < 0.5)[tagged].mean())
    unknown = int((~tagged).sum())
    text = (
        f"a detector of laterals agrees with {agreement:.1%} of {tagged.sum():,} views by tag, and "
        f"{len(wrong):,} images clearly look like the other view"
    )
    text += f"; of {unknown:,} without a tag {len(hidden):,} look lateral" if unknown else ""
    limit = limits.contradicted_views
    warns = len(wrong) > limit * int(tagged.sum()) or len(hidden) > limit * unknown
    worst = [group[np.argsort(-against[group])][:EXAMPLES] for group in (wrong, hidden)]
    examples = tuple((name,) for name in films.name(np.concatenate(worst)))
    return [Remark(f"{text} (sanity.contradicted_views)", warns, examples)]


def estimate_laterality(films: Films, lateral: NDArray[np.bool_], tagged: NDArray[np.bool_]) -> Probabilities:
    """Return the (N,) probability of each image to be lateral, by fits that did not see its patient."""
    from sklearn.linear_model import LogisticRegression  # takes two seconds to load

    vectors, fold = films.vectors * SIDE, films.fold_patients(FOLDS)  # each pixel now varies by about 1
    looks = np.full(len(films), float(lateral[tagged].mean()))
    for part in range(FOLDS):
        taught = np.flatnonzero(tagged & (fold != part))
        taught = taught[:: 1 + len(taught) // MAX_TAUGHT]
        asked = fold == part
        if asked.any() and 0 < lateral[taught].sum() < len(taught):
            model = LogisticRegression(C=PENALTY, solver="newton-cholesky").fit(vectors[taught], lateral[taught])
            looks[asked] = model.predict_proba(vectors[asked])[:, 1]
    return looks
