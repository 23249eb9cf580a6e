"""Open a label table in a folder of films of noise."""

from pathlib import Path
from typing import Any

from chestai.config import load as conf
from pipelines.spark.sources.label_table.source import LabelTable
from tests.support.corpus import encode_png, make_noise


def find(root: Path, *overrides: str, images: tuple[str, ...] = ("a.png", "sub/b.png")) -> LabelTable:
    """Open the table of a folder whose films are noise."""
    for seed, name in enumerate(images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_png(make_noise(seed)))
    settings = [f"source.root={root}", "source.columns.image=file", "source.columns.patient=who"]
    return LabelTable.find(conf.load(["source=table", *settings, *overrides]).source)  # type: ignore[arg-type]


def entries(source: LabelTable) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in source.entries.to_pylist() if row["reason"] is None}


def codes(source: LabelTable) -> dict[str, dict[str, str]]:
    return {key: dict(zip(source.vocabulary, row["codes"], strict=True)) for key, row in entries(source).items()}
