"""Numbers as other systems get them."""


def write_number(value: float) -> str:
    """A probability or a score, exact to 12 places: rounding further could carry it over an operating point.

    Raises:
        ValueError: It is not in 0 to 1.
    """
    if not 0 <= round(value, 12) <= 1:  # an operating point that calls nothing positive is the next float above 1
        raise ValueError(f"{value} must be in 0 to 1")
    return f"{value:.12f}".rstrip("0").rstrip(".")
