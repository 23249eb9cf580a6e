"""Runs all targets in turn until the time is over, or one of them again on one case.

    python -m tests.fuzz 20 [seed]          minutes
    python -m tests.fuzz png 1234 [seed]    a target and the number of a case

Prints progress once a minute. The first failure ends the run with its target, case and traceback.
"""

import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.grey_pngs import fuzz_grey_png, wait_for_kernel
from tests.fuzz.images import fuzz_dicom, fuzz_jpeg, fuzz_png
from tests.fuzz.requests import RequestTargets

Target = Callable[[random.Random], None]


def make_targets(folder: Path) -> dict[str, Target]:
    """Name -> a function that tries one case, and raises AssertionError if something is wrong."""
    requests = RequestTargets(folder)
    return {
        "png": fuzz_png,
        "grey_png": fuzz_grey_png,
        "jpeg": fuzz_jpeg,
        "dicom": fuzz_dicom,
        "upload": requests.fuzz_upload,
        "uri": requests.fuzz_uri,
        "cursor": requests.fuzz_cursor,
        "query": requests.fuzz_query,
        "json": requests.fuzz_json,
        "key": requests.fuzz_key,
        "token": requests.fuzz_token,
    }


def try_case(targets: dict[str, Target], name: str, seed: int, case: int) -> None:
    """Tries a case; its numbers follow from target, seed and case alone."""
    targets[name](random.Random(f"{name} {seed} {case}"))


def run(targets: dict[str, Target], seconds: float, seed: int) -> bool:
    """Tries cases until the time is over. Returns whether all went well."""
    started = told = time.monotonic()
    case = 0
    while (now := time.monotonic()) < started + seconds:
        for name in targets:
            try:
                try_case(targets, name, seed, case)
            except Exception:
                traceback.print_exc()
                print(f"failed: python -m tests.fuzz {name} {case} {seed}")
                return False
        case += 1
        if now - told >= 60:
            told = now
            print(f"{case:,} cases of each target, {(started + seconds - now) / 60:.0f} min left", flush=True)
    print(f"{case:,} cases of each of {', '.join(targets)}: nothing found (seed {seed})")
    return True


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        targets = make_targets(Path(folder))
        if not wait_for_kernel():
            print("there is no compiled kernel: grey_png compares OpenCV with itself")
        if arguments and arguments[0] in targets:
            try_case(targets, arguments[0], int(arguments[2]) if len(arguments) > 2 else 0, int(arguments[1]))
            return 0
        minutes = float(arguments[0]) if arguments else 20.0
        return 0 if run(targets, 60 * minutes, int(arguments[1]) if len(arguments) > 1 else 0) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
