"""Random targets and scores for the metric tests."""

import numpy as np

from chestai.metrics.masking import Floats


def draw_scores(seed: int) -> tuple[Floats, Floats]:
    """Targets of both classes; scores that are distinct for even seeds and heavily tied for odd ones."""
    generator = np.random.default_rng(seed)
    images = int(generator.choice([2, 3, 7, 50, 400]))
    targets = (generator.random(images) < generator.choice([0.05, 0.3, 0.9])).astype(np.float64)
    targets[generator.permutation(images)[:2]] = [0, 1]
    scores = generator.normal(size=images) + targets * generator.normal()
    return targets, np.round(scores, 0) if seed % 2 else scores
