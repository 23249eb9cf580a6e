"""The builds of a lake, oldest first: `python -m pipelines.etl history lake=./lake`."""

from rich.table import Table

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot


def show_history(config: Config, screen: Screen) -> None:
    """Print one line per build.

    Raises:
        UserError: The lake holds no build.
    """
    lake = Lake(config.lake)
    lake.find_snapshot()
    table = Table("snapshot", "built (UTC)", "source", "images", "refused rows", "train / val / test", "versions")
    for build in lake.list_snapshots():
        table.add_row(*_row(build))
    screen.console.print(table)


def _row(build: Snapshot) -> list[str]:
    return [
        build.snapshot_id,
        build.built_at.strftime("%Y-%m-%d %H:%M"),
        build.source,
        f"{build.accounting['gold']:,}",
        f"{build.accounting['quarantined_entries']:,}",
        " / ".join(f"{counts['images']:,}" for counts in build.splits.values()),
        ", ".join(f"{table.removeprefix('gold/')} {version}" for table, version in build.versions.items()),
    ]
