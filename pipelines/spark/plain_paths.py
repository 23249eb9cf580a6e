"""Spark, RayDP and Ray reached through a path that their command lines survive.

RayDP puts its own path into Java's options, which Spark splits at blanks.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray
import raydp
from raydp.spark import ray_cluster

from chestai.errors import UserError

PACKAGES = Path(raydp.__file__).parents[1]
JARS = ("raydp", "pyspark", "ray")


@contextlib.contextmanager
def plain_packages() -> Iterator[Path]:
    """Give the folder of the packages for the block, through a link in a private folder if its path is not plain.

    Raises:
        UserError: Its path is not plain, and a link on this machine alone does not help: Ray has other nodes, or the
            temporary folder's path is not plain either.
    """
    if is_plain(PACKAGES):
        yield PACKAGES
        return
    own = ray_cluster.__file__
    with tempfile.TemporaryDirectory(prefix="chestai-") as folder:
        if not is_plain(Path(folder)) or len(ray.nodes()) > 1:
            raise UserError(
                f"Spark on Ray cannot start from {PACKAGES}, which has a blank in it: move this folder, or rename it"
            )
        link = Path(folder) / "packages"
        link.symlink_to(PACKAGES)
        ray_cluster.__file__ = str(link / Path(own).relative_to(PACKAGES))  # RayDP finds its Java agent from here
        try:
            yield link
        finally:
            ray_cluster.__file__ = own


def is_plain(path: Path) -> bool:
    """Whether a path has no blanks and nothing that the search for file names takes for a pattern."""
    return re.search(r"[\s*?\[\]]", str(path)) is None


def make_class_path(packages: Path) -> str:
    """Return the class path of all jars below a folder of packages."""
    return os.pathsep.join(str(packages / name / "jars" / "*") for name in JARS)
