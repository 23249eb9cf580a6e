"""The builds of a lake, oldest first: `python -m pipelines.etl history lake=./lake`."""

from pyarrow import fs
from rich.table import Table

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from chestai.lake.snapshot import Snapshot


def show_history(config: Config, screen: Screen) -> None:
    """Print a line a build.

    Raises:
        UserError: the lake holds no build.
    """
    lake = Lake(config.lake)
    lake.snapshot()
    table = Table("snapshot", "built (UTC)", "source", "images", "refused rows", "train / val / test", "versions")
    for build in lake.history():
        table.add_row(*_row(build))
    screen.console.print(table)


def _row(build: Snapshot) -> list[str]:
    count = build.accounting
    return [
        build.snapshot_id,
        build.built_at.strftime("%Y-%m-%d %H:%M"),
        build.source,
        f"{count['gold']:,}",
        f"{count['quarantined_entries']:,}",
        " / ".join(f"{has['images']:,}" for has in build.splits.values()),
        ", ".join(f"{table.removeprefix('gold/')} {version}" for table, version in build.versions.items()),
    ]


def write_report(config: Config, lake: Lake, snapshot: Snapshot) -> str:
    """Write `reports/etl-<snapshot>.html` unless it is there, and return its location.

    With a remote lake and no MLflow server (`tracking.uri`) there is nowhere to log it.
    """
    name = f"etl-{snapshot.snapshot_id}.html"
    filesystem, path = lake.filesystem("reports", name)
    if filesystem.get_file_info(path).type == fs.FileType.NotFound or config.force:
        # Imported here because it takes seconds, and most calls find the page already written.
        from chestai.pages.etl_report.report import render_etl_report

        page = render_etl_report(lake, snapshot)
        if lake.local or config.tracking.uri:
            _log(config, lake, snapshot, name, page)
        lake.write_bytes(page.encode(), "reports", name)
    return lake.uri("reports", name)


def _log(config: Config, lake: Lake, snapshot: Snapshot, name: str, page: str) -> None:
    """One MLflow run a build: what was counted, and the page."""
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
