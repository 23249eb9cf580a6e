"""How the ETL scales with rows: NIH's label table, 1, 4 and 16 times, without images.

    python -m tests.bench.etl_rows /data/nih

Each build is a separate command, so its seconds include the start of Ray and Spark. Copies of the table have other
patients.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chestai.lake.lake import Lake
from tests.bench.record import measure_peak_memory, record

FACTORS = (1, 4, 16)
TABLES = ("Data_Entry_2017.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv")


def multiply(source: Path, target: Path, factor: int) -> int:
    """Write the tables with `factor` times the patients and return the number of label rows."""
    target.mkdir(parents=True)
    for table in TABLES:
        lines = (source / table).read_text().splitlines()
        head, body = (lines[:1], lines[1:]) if table.endswith(".csv") else ([], lines)
        with (target / table).open("w") as file:
            file.writelines(f"{line}\n" for line in head)
            for copy in range(factor):
                file.writelines(f"{_change_patient(line, copy)}\n" for line in body)
        if table == TABLES[0]:
            rows = len(body) * factor
    return rows


def _change_patient(line: str, copy: int) -> str:
    """Give a row another patient. The number is at its start and, in the label table, also in the fourth field."""
    number = f"{int(line[:8]) + copy * 100_000:08d}"
    fields = (number + line[8:]).split(",")
    return ",".join([*fields[:3], number, *fields[4:]]) if len(fields) > 9 else ",".join(fields)


def main(source: Path) -> None:
    rows, per_row = [], 0.0
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as folder, measure_peak_memory() as peak:
            count = multiply(source, Path(folder) / "nih", factor)
            started = time.monotonic()
            command = [sys.executable, "-m", "pipelines.etl", "source=nih", "source.images=optional"]
            subprocess.run([*command, f"source.root={folder}/nih", f"lake={folder}/lake"], check=True)
            seconds = time.monotonic() - started
            assert Lake(f"{folder}/lake").find_snapshot().accounting["gold"] == count
        per_row = per_row or seconds / count
        rows.append(
            {
                "factor": factor,
                "rows": count,
                "seconds": round(seconds, 1),
                "seconds_over_linear": round(seconds / count / per_row, 3),
                "peak_mib": round(peak.mib),
            }
        )
    print(record("etl_rows", rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
