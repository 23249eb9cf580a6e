"""The weight of positive labels in a loss."""


def compute_balance_weight(positives: int, labelled: int) -> float:
    """Computes negatives / positives, the weight of a positive that balances both in a loss.

    Args:
        positives: Number of images with the finding.
        labelled: Number of images whose label is known, positives included.

    Returns:
        A finite weight above 0; 1 if there are no positives or no negatives to balance.
    """
    negatives = labelled - positives
    return negatives / positives if positives and negatives else 1.0
