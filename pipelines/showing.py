"""The page that shows a build: written into the lake once, and logged to MLflow."""

from pyarrow import fs

from chestai.lake import IMAGES, Lake, Snapshot
from chestai.sections import Config


def show(config: Config, lake: Lake, snapshot: Snapshot) -> str:
    """Write `reports/etl-<snapshot>.html` unless it is there, and return its location.

    With a remote lake and no MLflow server (`tracking.uri`) there is nowhere to log it.
    """
    name = f"etl-{snapshot.snapshot_id}.html"
    filesystem, path = lake.filesystem("reports", name)
    if filesystem.get_file_info(path).type == fs.FileType.NotFound or config.force:
        from chestai.pages.build import render  # these take seconds, and most calls find the page

        page = render(lake, snapshot)
        if lake.local or config.tracking.uri:
            _log(config, lake, snapshot, name, page)
        lake.write_bytes(page.encode(), "reports", name)
    return lake.uri("reports", name)


def _log(config: Config, lake: Lake, snapshot: Snapshot, name: str, page: str) -> None:
    """One MLflow run a build: what was counted, and the page."""
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    from chestai.registry import Registry

    Registry(config.tracking, lake).connect()
    tags = {"chestai.stage": "etl", "chestai.snapshot": snapshot.snapshot_id}
    source = DeltaDatasetSource(path=lake.uri(IMAGES), delta_table_version=snapshot.versions[IMAGES])
    with mlflow.start_run(run_name=f"etl-{snapshot.snapshot_id}", tags=tags):
        mlflow.log_params({"snapshot": snapshot.snapshot_id, "source": snapshot.source})
        mlflow.log_metrics(dict(snapshot.accounting))
        mlflow.log_input(MetaDataset(source, name=snapshot.source, digest=snapshot.snapshot_id))  # type: ignore[abstract]
        mlflow.log_text(page, name)
