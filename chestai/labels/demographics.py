"""Parses age, sex and view position of label tables and image headers into the form of the lake."""

import re

OLDEST_YEARS = 120.0
UNITS_A_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}

PA, AP, LATERAL = "PA", "AP", "lateral"
VIEWS = {PA: PA, AP: AP, "LL": LATERAL, "RL": LATERAL, "LATERAL": LATERAL, "LLAT": LATERAL, "RLAT": LATERAL}


def read_years(text: str) -> float | None:
    """An age such as `058Y`, `013M`, `006W`, `001D` or `58`, in years; None if it is no possible age."""
    match = re.fullmatch(r"(\d+)(?:\.0)?([YMWD]?)", text)
    if match is None:
        return None
    years = int(match[1]) / UNITS_A_YEAR[match[2]]
    return years if years <= OLDEST_YEARS else None


def read_sex(text: str) -> str | None:
    """`M` or `F`; None for anything else."""
    return SEXES.get(text.strip().upper())


def read_view(text: str) -> str | None:
    """`PA`, `AP` or `lateral`; None for anything else."""
    return VIEWS.get(text.strip().upper())
