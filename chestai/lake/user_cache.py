"""The user's cache, for files that can be made again."""

import os
import tempfile
from pathlib import Path


def find_user_cache(name: str) -> Path:
    """`chestai/<name>` in the user's cache (XDG base directories); of a user without a home, among temporary files."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        cache = Path(tempfile.gettempdir()) / f"cache-{os.geteuid()}"
    return cache.absolute() / "chestai" / name
