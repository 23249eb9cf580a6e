"""Parses age, sex and view position from label tables and image headers."""

import re

OLDEST_YEARS = 120.0
UNITS_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}

PA, AP, LATERAL = "PA", "AP", "lateral"
VIEWS = {PA: PA, AP: AP, "LL": LATERAL, "RL": LATERAL, "LATERAL": LATERAL, "LLAT": LATERAL, "RLAT": LATERAL}


def parse_age_years(text: str) -> float | None:
    """Parses an age such as `058Y`, `013M`, `006W`, `001D` or `58` into years; None if malformed or above 120."""
    match = re.fullmatch(r"(\d+)(?:\.0)?([YMWD]?)", text)
    if match is None:
        return None
    years = int(match[1]) / UNITS_PER_YEAR[match[2]]
    return years if years <= OLDEST_YEARS else None


def parse_sex(text: str) -> str | None:
    """Parses a sex into `M` or `F`; None for anything else."""
    return SEXES.get(text.strip().upper())


def parse_view(text: str) -> str | None:
    """Parses a view position into `PA`, `AP` or `lateral`; None for anything else."""
    return VIEWS.get(text.strip().upper())
