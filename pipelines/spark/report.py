"""The page of a build, `reports/etl-<snapshot>.html`, and its MLflow run."""

from pyarrow import fs

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from chestai.lake.snapshot import Snapshot


def write_report(config: Config, lake: Lake, snapshot: Snapshot, built: bool) -> str:
    """Write the page, log it to MLflow, and return its location.

    A remote lake without an MLflow server (`tracking.uri`) has nowhere to log to; the page is then only written.

    Args:
        built: By this run. Otherwise a page that exists stays as it is.
    """
    name = f"etl-{snapshot.snapshot_id}.html"
    filesystem, path = lake.filesystem("reports", name)
    if filesystem.get_file_info(path).type == fs.FileType.NotFound or built:
        # Imported here because it takes seconds, and most calls find the page already written.
        from chestai.pages.etl_report.report import render_etl_report

        page = render_etl_report(lake, snapshot)
        if lake.local or config.tracking.uri:
            _log_build(config, lake, snapshot, name, page)
        lake.write_bytes(page.encode(), "reports", name)
    return lake.uri("reports", name)


def _log_build(config: Config, lake: Lake, snapshot: Snapshot, name: str, page: str) -> None:
    """Log the counts and the page as one MLflow run."""
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    from chestai.model.registry import Registry

    Registry(config.tracking, lake).connect()
    tags = {"chestai.stage": "etl", "chestai.snapshot": snapshot.snapshot_id}
    source = DeltaDatasetSource(path=lake.uri(IMAGES), delta_table_version=snapshot.versions[IMAGES])
    with mlflow.start_run(run_name=f"etl-{snapshot.snapshot_id}", tags=tags):
        mlflow.log_params({"snapshot": snapshot.snapshot_id, "source": snapshot.source})
        mlflow.log_metrics(dict(snapshot.accounting))
        mlflow.log_input(MetaDataset(source, name=snapshot.source, digest=snapshot.snapshot_id))  # type: ignore[abstract]
        mlflow.log_text(page, name)
