"""Writes docs/benchmarks.md from the results in the repository.

    python -m tests.bench.summary

`make bench` does it too, once it has measured.
"""

import sys

from tests.bench.record import RESULTS
from tests.bench.summary.render import make_page
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def write_page() -> None:
    """Writes the page, and names on stderr what had to be left out."""
    text, left_out = make_page(RESULTS)
    PAGE.write_text(text)
    print(f"written: {PAGE}", flush=True)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)


if __name__ == "__main__":
    write_page()
