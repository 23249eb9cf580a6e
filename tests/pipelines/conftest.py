"""One Spark session, NIH's whole label file as a lake, a registered champion."""

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
from pipelines.spark.sources.nih import BOX_TABLE
from pipelines.spark.sources.split_lists import LISTS
from pipelines.training.register import register
from tests.support.corpus import BuiltCorpus, corpus_config, run_etl, write_corpus
from tests.support.models import add_confidence, make_bundle


@pytest.fixture(scope="session")
def spark_session(ray_cluster: None) -> Iterator[SparkSession]:
    """Spark on the test run's Ray. Builds use it instead of starting their own."""
    with spark.spark_session("chestai-tests", conf.load(["cluster=laptop"]).cluster.spark) as session:
        yield session


@pytest.fixture(scope="session")
def built_corpus(spark_session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> BuiltCorpus:
    """The small corpus of bad inputs, built into a local lake."""
    folder = tmp_path_factory.mktemp("etl")
    write_corpus(folder / "corpus")
    summary = run_etl(corpus_config(folder / "corpus", folder / "lake"))
    lake = Lake(str(folder / "lake"))
    return BuiltCorpus(folder / "corpus", lake, summary, lake.find_snapshot())


@pytest.fixture(scope="session")
def whole_nih(
    spark_session: SparkSession, nih_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Lake]:
    """Return a function that builds the 112,120 rows of a label file without images, once per file."""

    @functools.cache
    def build(table: str) -> Lake:
        folder = tmp_path_factory.mktemp("nih")
        root = folder / "nih"
        root.mkdir()
        for name in (table, *LISTS.values(), BOX_TABLE):
            (root / name).symlink_to(nih_root / name)
        run_etl(corpus_config(root, folder / "lake", "source.images=optional"))
        return Lake(str(folder / "lake"))

    return build


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A lake that holds a champion and nothing else."""
    config = conf.load([f"lake={tmp_path_factory.mktemp('registered') / 'lake'}", "score.batch_size=4"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(add_confidence(make_bundle()), registry))
    return config


@pytest.fixture(scope="session")
def bundle(registered: Config) -> Bundle:
    return Registry(registered.tracking, Lake(registered.lake)).load("champion").bundle
