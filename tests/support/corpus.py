"""A small corpus in ChestX-ray14's form with one of everything that can be wrong, and ways to build it."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType
from rich.console import Console

from chestai.cli.console import Screen
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config import schema
from chestai.labels.findings import merge_vocabularies
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from pipelines import etl
from pipelines.data.files import LISTING
from pipelines.spark.file_inspection import FILE_FACTS, inspect_file
from pipelines.spark.inputs import gather_boxes, gather_entries, list_guesses, open_inputs
from pipelines.spark.reconcile import ReconciledRows, count_inputs, reconcile
from pipelines.spark.sources.nih import BOX_HEADER, ENTRY_HEADER

# Label rows up to the view position; the rest is the same in all.
ENTRY_ROWS = [
    "00000001_000.png,Cardiomegaly,000,00000001,058Y,M,PA",
    "00000001_001.png,Cardiomegaly|Emphysema,001,00000001,058Y,M,PA",
    "00000002_000.png,No Finding,000,00000002,414Y,F,AP",
    "00000003_000.png,Infiltration,000,00000003,013M,F,AP",
    "00000004_000.png,Mass,000,00000004,040Y,M,PA",
    "00000004_001.png,Mass,001,00000004,040Y,M,PA",
    "00000004_002.png,Mass,002,00000004,040Y,M,PA",
    "00000005_000.png,Nodule,000,00000005,050Y,M,PA",
    "00000005_001.png,Nodule,001,00000005,050Y,M,PA",
    "00000006_000.png,Hernia,000,00000006,060Y,M,PA",
    "00000007_000.png,Edema,000,00000007,061Y,M,PA",
    "00000008_000.png,Gout,000,00000008,061Y,M,PA",
    "00000009_000.png,Mass,000,00000010,061Y,M,PA",
    "00000001_000.png,Hernia,000,00000001,058Y,M,PA",
    "00000011_000.png,Mass,000,00000011,061Y,M,PA",
    "00000012_000.png,Mass,000,00000012,061Y,M,PA",
    "00000013_000.png,Effusion,000,00000013,001D,F,PA",
]

BOX_ROWS = [
    "00000003_000.png,Infiltrate,10.5,20,30,40,,,",
    "00000004_000.png,Mass,1,1,2,2,,,",
    "00000003_000.png,Gout,1,1,2,2,,,",
    "00000003_000.png,Mass,1,1,0,2,,,",
]

TEST_FILES = [f"{name}_000.png" for name in ("00000002", "00000003", "00000013")]


def make_noise(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def encode_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_corpus(root: Path) -> None:
    """Write a corpus in ChestX-ray14's form with one of everything that can be wrong."""
    first, second = root / "images_001" / "images", root / "images_002" / "images"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    table = [ENTRY_HEADER + ",", *(f"{row},2500,2048,0.1,0.1" for row in ENTRY_ROWS), "not a row of the table"]
    (root / "Data_Entry_2017.csv").write_text("\r\n".join(table) + "\r\n", newline="")
    (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER + ",,,", *(row[:-3] for row in BOX_ROWS)]))
    listed = sorted({row.split(",")[0] for row in ENTRY_ROWS} - {"00000012_000.png"} - set(TEST_FILES))
    (root / "train_val_list.txt").write_text("\n".join(listed))
    (root / "test_list.txt").write_text("\n".join(TEST_FILES))
    rgba = cv2.cvtColor(make_noise(11), cv2.COLOR_GRAY2BGRA)
    files = {
        "00000001_000": encode_png(make_noise(10)),
        "00000001_001": encode_png(rgba),
        "00000002_000": encode_png(make_noise(20)),
        "00000003_000": encode_png(make_noise(30, 80, 48)),
        "00000004_000": encode_png(make_noise(40))[:1000],
        "00000004_001": b"<html>not an image</html>",
        "00000004_002": b"",
        "00000005_000": encode_png(make_noise(50)),
        "00000005_001": encode_png(make_noise(50)),
        "00000006_000": encode_png(make_noise(60)),
        "00000007_000": encode_png(make_noise(60)),
        "00000008_000": encode_png(make_noise(80)),
        "00000009_000": encode_png(make_noise(90)),
        "00000012_000": encode_png(make_noise(120)),
        "00000013_000": encode_png(np.full((64, 64), 255, np.uint8)),
        "99999999_000": encode_png(make_noise(99)),
    }
    for name, data in files.items():
        (first / f"{name}.png").write_bytes(data)
    (second / "00000001_000.png").write_bytes(encode_png(make_noise(10)))


def corpus_config(root: Path, lake: Path, *overrides: str) -> schema.Config:
    words = ["cluster=laptop", f"source.root={root}", f"lake={lake}", "cluster.spark.memory=512m", *overrides]
    if not any(word.startswith("source=") for word in overrides):
        words.append("source.box_pixels=null")
    return conf.load(words)


def run_etl(config: schema.Config) -> Summary:
    return etl.run(config, Screen(Console(file=io.StringIO(), width=120)))


@dataclass(frozen=True)
class BuiltCorpus:
    """A corpus, the lake that it was built into, and what the ETL reported."""

    root: Path
    lake: Lake
    summary: Summary
    snapshot: Snapshot

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.read_gold(self.snapshot, table).to_pylist()
        return rows

    def by_image(self, table: str) -> dict[str, dict[str, Any]]:
        return {row["image_id"]: row for row in self.rows(table)}


@dataclass(frozen=True)
class ReconciledCorpus:
    """What the ETL makes of a corpus before it writes tables: a quicker way to test than a build."""

    rows: ReconciledRows
    vocabulary: tuple[str, ...]
    accounting: dict[str, int]
    notes: list[str]
    guesses: tuple[str, ...]

    def gold(self) -> dict[str, dict[str, Any]]:
        return {row["image_id"]: row.asDict() for row in self.rows.gold.collect()}

    def quarantine(self) -> list[dict[str, Any]]:
        return [row.asDict() for row in self.rows.quarantine().collect()]


def reconcile_corpus(session: SparkSession, config: schema.Config) -> ReconciledCorpus:
    """Read the sources, inspect their files in this process, and reconcile both."""
    inputs = open_inputs(config)
    vocabulary = merge_vocabularies(source_input.source.vocabulary for source_input in inputs)
    files = []
    for source_input in inputs:
        for row in source_input.listing.to_pylist():
            path = source_input.source.folder.location(row["path"])
            facts = dict.fromkeys(FILE_FACTS.names) | inspect_file(path)
            files.append({**row, "path": path, "source": source_input.name, **facts})
    columns = [*from_arrow_schema(LISTING), StructField("source", StringType()), *from_arrow_schema(FILE_FACTS)]
    file_rows = [tuple(file[column.name] for column in columns) for file in files]
    entries = gather_entries(session, inputs, vocabulary).persist()
    file_frame = session.createDataFrame(file_rows, StructType(columns))
    rows = reconcile(entries, file_frame, gather_boxes(session, inputs), config.split)
    accounting = count_inputs(entries.count(), len(files), rows)
    notes = [source_input.source.note for source_input in inputs]
    return ReconciledCorpus(rows, vocabulary, accounting, notes, list_guesses(inputs))
