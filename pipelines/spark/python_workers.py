"""Spark's Python workers, relieved of a habit that costs a tenth of a second a task.

Before each task a worker calls `importlib.invalidate_caches`, and Python then reads the directory of every archive on
`sys.path` again: Spark puts its own jar of thousands of classes there.
"""

import functools
import sys
import zipimport
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def without_zip_rescan(function: Callable[P, T]) -> Callable[P, T]:
    """A function for `mapInArrow` or `pandas_udf` that spares the tasks after it that reading."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for path, importer in list(sys.path_importer_cache.items()):
            if isinstance(importer, zipimport.zipimporter):
                del sys.path_importer_cache[path]  # an import makes it again, from a directory that is known
        return function(*args, **kwargs)

    return call
