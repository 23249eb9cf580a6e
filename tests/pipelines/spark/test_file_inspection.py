"""One file at a time: what is found out, and that a bad file is a row and no error."""

from pathlib import Path

import pytest

from chestai.imaging.errors import REASONS
from pipelines.spark.file_inspection import FILE_FACTS, inspect_file
from tests.support.corpus import encode_png, make_noise


def test_an_unreadable_file_is_a_row_and_no_error(tmp_path: Path) -> None:
    assert inspect_file(str(tmp_path / "gone.png"))["file_reason"] == "unreadable_file"
    (tmp_path / "cut.png").write_bytes(encode_png(make_noise(1))[:500])
    cut = inspect_file(str(tmp_path / "cut.png"))
    assert cut["file_reason"] == "truncated" and cut["bytes"] == 500 and "pixel_mean" not in cut
    assert cut["file_reason"] in REASONS and set(cut) <= set(FILE_FACTS.names)


def test_moments_are_exact(tmp_path: Path) -> None:
    pixels = make_noise(7, 700, 900)
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    facts = inspect_file(str(tmp_path / "a.png"))
    assert facts["pixel_mean"] == pytest.approx((pixels / 255).mean(), rel=1e-12)
    assert facts["pixel_std"] == pytest.approx((pixels / 255).std(), rel=1e-9)


def test_known_facts_stand_for_the_same_content_only(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(make_noise(1)))
    known = dict.fromkeys(FILE_FACTS.names) | inspect_file(str(path)) | {"pixel_mean": 0.125}
    assert inspect_file(str(path), known)["pixel_mean"] == 0.125
    path.write_bytes(encode_png(make_noise(2)))
    assert inspect_file(str(path), known)["pixel_mean"] != 0.125
