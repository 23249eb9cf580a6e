"""What the page says of the machine, and of results that are from another."""

from tests.bench.summary.machine import find_machine
from tests.bench.summary.results import Table


def make_table(name: str, date: str, **facts: str) -> Table:
    return Table(
        name, ({"date": date, "cpu": "AMD EPYC", "cores": "2", "python": "3.11.7", "torch": "2.15.0", **facts},)
    )


def test_takes_the_machine_of_most_results() -> None:
    odd = make_table("odd", "2026-11-20", cpu="Xeon", cores="64", torch="2.16.0")
    machine = find_machine([odd, make_table("a", "2026-11-22"), make_table("b", "2026-11-25")])
    assert machine.facts == {"cpu": "AMD EPYC", "cores": "2", "python": "3.11.7", "torch": "2.15.0"}
    assert machine.packages == ["torch 2.15.0"]
    assert machine.days == "2026-11-20 to 2026-11-25"
    assert machine.describe(odd) == "2026-11-20, Xeon, 64 cores, torch 2.16.0"


def test_a_package_that_a_result_does_not_name_is_no_difference() -> None:
    old = make_table("old", "2026-11-22", torch="", cores="1")
    machine = find_machine([make_table("a", "2026-11-22"), make_table("b", "2026-11-22"), old])
    assert machine.days == "2026-11-22"
    assert machine.describe(old) == "2026-11-22, 1 core"
