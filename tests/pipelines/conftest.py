"""One Spark session for the tests of this package, NIH's whole label file as a lake, a registered champion."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from pyspark.sql import SparkSession

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from pipelines.spark import session as spark
from pipelines.training.register import register
from tests.support.corpus import configure, run
from tests.support.models import make_bundle

LISTS = ("train_val_list.txt", "test_list.txt")


@pytest.fixture(scope="package")
def spark_session(ray_cluster: None) -> Iterator[SparkSession]:
    """Spark on the test run's Ray; a build inside uses it instead of starting its own."""
    with spark.session("chestai-tests", conf.load(["cluster=laptop"]).cluster.spark) as session:
        yield session


@pytest.fixture(scope="package")
def whole_nih(
    spark_session: SparkSession, nih_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Lake]:
    """An issue of the label file -> its 112,120 rows built without images, once."""

    @functools.cache
    def build(issue: str) -> Lake:
        folder = tmp_path_factory.mktemp("nih")
        root = folder / "nih"
        root.mkdir()
        for name in (issue, *LISTS, "BBox_List_2017.csv"):
            (root / name).symlink_to(nih_root / name)
        run(configure(root, folder / "lake", "source.images=optional"))
        return Lake(str(folder / "lake"))

    return build


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A lake that holds a champion and nothing else."""
    config = conf.load([f"lake={tmp_path_factory.mktemp('registered') / 'lake'}", "score.batch_size=4"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(make_bundle(), registry))
    return config


@pytest.fixture(scope="session")
def bundle(registered: Config) -> Bundle:
    return Registry(registered.tracking, Lake(registered.lake)).load("champion").bundle
