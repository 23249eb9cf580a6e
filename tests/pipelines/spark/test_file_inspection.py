"""Inspection of one file at a time."""

from pathlib import Path

import numpy as np
import pytest

from chestai.imaging.errors import REASONS
from pipelines.spark.file_inspection import FILE_FACTS, inspect_file
from tests.support.corpus import encode_png, make_noise


def test_bad_file_is_a_row_and_not_an_error(tmp_path: Path) -> None:
    assert inspect_file(str(tmp_path / "gone.png"))["file_reason"] == "unreadable_file"
    (tmp_path / "cut.png").write_bytes(encode_png(make_noise(1))[:500])
    truncated = inspect_file(str(tmp_path / "cut.png"))
    assert truncated["file_reason"] == "truncated" and truncated["bytes"] == 500 and "pixel_mean" not in truncated
    assert truncated["file_reason"] in REASONS and set(truncated) <= set(FILE_FACTS.names)


def test_pixel_mean_and_deviation_are_exact(tmp_path: Path) -> None:
    pixels = make_noise(7, 700, 900)
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    facts = inspect_file(str(tmp_path / "a.png"))
    assert facts["pixel_mean"] == pytest.approx((pixels / 255).mean(), rel=1e-12)
    assert facts["pixel_std"] == pytest.approx((pixels / 255).std(), rel=1e-9)


def test_known_facts_are_reused_for_the_same_content_only(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(make_noise(1)))
    known = dict.fromkeys(FILE_FACTS.names) | inspect_file(str(path)) | {"pixel_mean": 0.125}
    assert inspect_file(str(path), known)["pixel_mean"] == 0.125
    path.write_bytes(encode_png(make_noise(2)))
    assert inspect_file(str(path), known)["pixel_mean"] != 0.125


def test_inspection_keeps_a_thumbnail_and_the_grey_range(tmp_path: Path) -> None:
    pixels = np.full((256, 256), 40, np.uint8)
    pixels[:128] = 200
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    facts = inspect_file(str(tmp_path / "a.png"))
    assert facts["thumbnail"] == bytes([200] * 128 + [40] * 128)
    assert (facts["grey_low"], facts["grey_high"], facts["common_grey"]) == (40, 200, 0.5)
