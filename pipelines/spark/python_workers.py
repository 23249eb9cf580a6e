"""Make Spark's Python workers skip a step that costs a tenth of a second per task.

Before each task a worker calls `importlib.invalidate_caches`. Python then reads the directory of every archive on
`sys.path` again, and Spark puts its own jar of thousands of classes there.
"""

import functools
import sys
import zipimport
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def without_zip_rescan(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function for `mapInArrow` or `pandas_udf` so that later tasks of the worker do not rescan archives."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for path, importer in list(sys.path_importer_cache.items()):
            if isinstance(importer, zipimport.zipimporter):
                del sys.path_importer_cache[path]  # an import recreates it from a directory that is already read
        return function(*args, **kwargs)

    return call
