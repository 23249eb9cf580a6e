"""Settings of the cluster, of Spark on it, and of MLflow."""

from chestai.config.types import Positive, Rate, Section


class Tracking(Section):
    uri: str | None
    experiment: str
    model: str


class SparkSettings(Section):
    executors: Positive
    cores: Positive
    memory: str


class Cluster(Section):
    address: str | None
    cpus: Positive
    object_store_gb: Rate
    spark: SparkSettings
