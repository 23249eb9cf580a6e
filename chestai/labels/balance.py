"""The weight of a finding's positives in a loss."""


def pos_weight(positives: int, known: int) -> float:
    """Negatives / positives, so that both weigh the same in a loss.

    Args:
        positives: images that have the finding.
        known: images whose label is known, positives among them.

    Returns:
        Above 0 and finite; 1 where either is missing, since there is no balance to restore then.
    """
    negatives = known - positives
    return negatives / positives if positives and negatives else 1.0
