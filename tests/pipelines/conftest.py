"""One Spark session for the tests of this package."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from chestai import config as conf
from pipelines import spark


@pytest.fixture(scope="package")
def spark_session(ray_cluster: None) -> Iterator[SparkSession]:
    """Spark on the test run's Ray; a build inside uses it instead of starting its own."""
    with spark.session("chestai-tests", conf.load().cluster.spark) as session:
        yield session
