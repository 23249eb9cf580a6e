"""How the page words a number: rounded, as a ratio, and beside a target."""

import math

TIMES = "\u00d7"
NONE = "\u2013"  # an en dash: where there is no peer, or no limit


def number(value: float) -> str:
    """A number with three significant digits, and at most two decimals."""
    whole_digits = math.floor(math.log10(abs(value))) + 1 if value else 1
    decimals = min(2, 3 - whole_digits)
    return f"{round(value, decimals):,.{max(0, decimals)}f}"


def count(value: float) -> str:
    """A whole number with all its digits."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    return f"{number(100 * share)} %"


def times(ratio: float, peer: str) -> str:
    """A ratio to a peer."""
    return f"{number(ratio)} {TIMES} {peer}"


def at_most(value: float, target: float, unit: str) -> str:
    """A target from above, and whether a value meets it."""
    return f"at most {target:,g} {unit}: {_judge(value <= target)}"


def at_least(value: float, target: float, unit: str) -> str:
    """A target from below, and whether a value meets it."""
    return f"at least {target:,g} {unit}: {_judge(value >= target)}"


def _judge(met: bool) -> str:
    return "met" if met else "**missed**"
