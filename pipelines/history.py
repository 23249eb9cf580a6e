"""The builds of a lake, oldest first: `python -m pipelines.etl history lake=./lake`."""

from rich.table import Table

from chestai.lake import Lake, Snapshot
from chestai.screen import Screen
from chestai.sections import Config


def run(config: Config, screen: Screen) -> None:
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
