"""The run of all benchmarks: what is chosen, and that one that fails stops no other."""

import re
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench.__main__ import IMAGES, PLAN, Benchmark
from tests.bench.summary import __main__ as summary

WORKS, FAILS = Benchmark("record", 1), Benchmark("nothing", 1)  # a module that runs and does nothing; no module


def test_the_quick_ones_end_in_under_half_an_hour() -> None:
    assert sum(one.minutes for one in bench.choose(PLAN, [], everything=False)) < 30


def test_the_plan_has_every_benchmark() -> None:
    files = [path for path in Path(bench.__file__).parent.glob("*.py") if not path.name.startswith("test_")]
    scripts = {path.stem for path in files if re.search(r"^ +(print\()?record\(", path.read_text(), re.MULTILINE)}
    assert len(scripts) > 15
    assert scripts <= {one.name for one in PLAN}


def test_chooses_by_name_even_the_long_ones() -> None:
    assert [one.name for one in bench.choose(PLAN, ["sweep", "decode"], everything=False)] == ["decode", "sweep"]


def test_chooses_all_when_asked() -> None:
    assert bench.choose(PLAN, [], everything=True) == [*PLAN]


def test_goes_on_after_a_failure_and_says_what_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run_all([FAILS, WORKS], None) == ["nothing"]
    printed = capfd.readouterr().out
    assert "[1/2] nothing, 1 min of 2 left" in printed
    assert "[2/2] record, 1 min of 1 left" in printed


def test_skips_what_needs_images_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run_all([Benchmark("nothing", 1, (IMAGES,)), WORKS], None) == []
    printed = capfd.readouterr().out
    assert "skipped, because they need the folder of NIH's originals: nothing\n" in printed
    assert "[1/1] record" in printed


def test_ends_a_benchmark_that_takes_too_long(capfd: pytest.CaptureFixture[str]) -> None:
    assert not bench.run(Benchmark("record", 0.0001), None)
    assert "record takes more than 2 times its time" in capfd.readouterr().out


def test_writes_the_page_and_fails_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "PLAN", (FAILS, WORKS))
    monkeypatch.setattr(summary, "PAGE", tmp_path / "page.md")
    assert bench.main([]) == 1
    assert (tmp_path / "page.md").read_text().startswith("# Benchmarks")
    assert "failed, their last results stay: nothing" in capfd.readouterr().err
    assert bench.main(["record"]) == 0


def test_an_unknown_name_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["decoed"])
    assert "no benchmark is named decoed" in capfd.readouterr().err
