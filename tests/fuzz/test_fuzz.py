"""A few cases of each target of `make fuzz`, and that it finds what is there to find."""

from pathlib import Path
from random import Random

import pytest

from chestai.imaging import png
from tests.fuzz import __main__ as fuzz
from tests.fuzz.images import fuzz_png


def test_finds_nothing_in_a_few_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.run(fuzz.make_targets(tmp_path), seconds=8, seed=1)
    assert "nothing found (seed 1)" in capsys.readouterr().out


def test_names_the_failing_case(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(random: Random) -> None:
        assert random.random() < 0.9

    assert not fuzz.run({"broken": fail}, seconds=60, seed=3)
    target, case, seed = capsys.readouterr().out.split("python -m tests.fuzz ")[1].split()
    with pytest.raises(AssertionError):
        fuzz.try_case({"broken": fail}, target, int(seed), int(case))


def test_finds_a_check_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of places, a chunk before the header goes unnoticed."""
    monkeypatch.setattr(png, "_check_place", lambda *_: None)
    with pytest.raises(Exception):  # noqa: B017
        for case in range(3000):
            fuzz_png(Random(case))
