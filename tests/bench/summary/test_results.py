"""Reading the CSV files of benchmarks."""

from pathlib import Path

import pytest

from tests.bench.summary.results import MissingError, Results, Table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    (tmp_path / "speed.csv").write_text("what,images,rate\nours,10,1.5\nours,10,2.5\nours,30,9\ntheirs,10,\n")
    return Results(tmp_path)["speed"]


def test_takes_the_median_of_rows_of_a_kind(table: Table) -> None:
    assert table.where(what="ours", images=10).median("rate") == 2.0


def test_finds_the_rows_with_least_and_most(table: Table) -> None:
    assert table.least("images").values("rate") == [1.5, 2.5]
    assert table.most("images").values("rate") == [9.0]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda table: table.where(what="others"), "speed.csv has no row where what is others"),
        (lambda table: table.where(colour="grey"), "speed.csv has no row where colour is grey"),
        (lambda table: table.median("seconds"), "speed.csv has nothing in the column seconds"),
        (lambda table: table.where(what="theirs").median("rate"), "speed.csv has nothing in the column rate"),
    ],
)
def test_names_what_is_missing(table: Table, read: object, message: str) -> None:
    assert callable(read)
    with pytest.raises(MissingError, match=f"^{message}$"):
        read(table)


def test_names_a_file_that_is_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("what,rate\n")
    with pytest.raises(MissingError, match=r"^there is no absent\.csv$"):
        Results(tmp_path)["absent"]
    with pytest.raises(MissingError, match=r"^empty\.csv has no rows$"):
        Results(tmp_path)["empty"]
