"""CSV files: texts that a spreadsheet would run as formulas are shown as text, and numbers stay numbers."""

import io
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from chestai.lake.csv_cells import quote_formula, write_csv
from tests.support.paths import ROOT

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=1\n=2", "="]
HARMLESS = ["00000088_000", "a=b", "a-b", "", "Röntgen", "'=1", "2025/a.png", "1+1"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_that_are_formulas_get_an_apostrophe(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"image_id": pa.array([*FORMULAS, *HARMLESS, None], kind)})
    write_csv(table, tmp_path / "a.csv")
    found = pd.read_csv(tmp_path / "a.csv", keep_default_na=False, skip_blank_lines=False)["image_id"]
    assert list(found) == [*(f"'{text}" for text in FORMULAS), *HARMLESS, ""]
    assert [quote_formula(text) for text in (*FORMULAS, *HARMLESS)] == list(found)[:-1]


def test_numbers_stay_numbers() -> None:
    sink = io.BytesIO()
    columns = {"score": [-0.5, None], "rank": [-1, 2], "is_read": [True, None]}
    write_csv(pa.table({"image_id": ["=1", "a"], **columns}), sink)
    assert sink.getvalue() == b'"image_id","score","rank","is_read"\n"\'=1",-0.5,-1,true\n"a",,2,\n'
    assert quote_formula(-0.5) == -0.5 and quote_formula(None) is None


def test_no_other_module_writes_csv() -> None:
    """So that nothing forgets the apostrophe."""
    writers = re.compile(r"pacsv\.write_csv|csv\.writer|DictWriter|\.to_csv")
    files = {path for package in ("chestai", "pipelines", "serve", "tune") for path in (ROOT / package).rglob("*.py")}
    found = {str(path.relative_to(ROOT)) for path in files if writers.search(path.read_text())}
    assert found == {"chestai/lake/csv_cells.py", "chestai/pages/model_card/csv_tables.py"}
