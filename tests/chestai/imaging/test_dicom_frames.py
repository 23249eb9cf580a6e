"""Compressed pixel data of DICOM files: every transfer syntax is read, and nothing that misses data or keeps busy."""

import io
import struct
import zlib  # noqa: F401  (before gdcm, whose own zlib would take its place)
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, get_frame

from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from tests.serve.support.forgery import make_jpeg, make_scan_bomb
from tests.support.dicom import EIGHT, SIGNED, TWELVE, a_file, compressed, written

LOSSLESS = ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(("image", "bits"), [(EIGHT, 8), (TWELVE, 12), (SIGNED, 13)])
def test_lossless_compression_keeps_the_pixels(tmp_path: Path, syntax: str, image: np.ndarray, bits: int) -> None:
    plain = a_file(image, bits)
    small = compressed(tmp_path, plain, getattr(gdcm.TransferSyntax, syntax))
    assert dcmread(io.BytesIO(small)).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(preprocess.decode(small), preprocess.decode(plain))


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEGExtendedProcess2_4"])
def test_lossy_jpeg_is_within_4_grey_values(tmp_path: Path, syntax: str) -> None:
    small = compressed(tmp_path, a_file(EIGHT, 8), getattr(gdcm.TransferSyntax, syntax))
    assert np.abs(preprocess.decode(small).astype(int) - preprocess.decode(a_file(EIGHT, 8))).max() <= 4


def encapsulated(frame: bytes, syntax: str, **elements: Any) -> bytes:
    return a_file(EIGHT, 8, PixelData=encapsulate([frame + bytes(len(frame) % 2)]), syntax=syntax, **elements)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_rejects_jpeg_that_misses_data(syntax: str) -> None:
    whole = make_jpeg(EIGHT)
    for share in (0.5, 0.7, 0.9):
        at = whole.index(b"\xff\xda") + 10 + int(share * (len(whole) - whole.index(b"\xff\xda") - 12))
        with pytest.raises(Unreadable, match=r"^(truncated|undecodable): the JPEG data are damaged"):
            preprocess.decode(encapsulated(whole[:at] + b"\xff\xd9", syntax))
    assert (
        np.abs(preprocess.decode(encapsulated(whole, syntax)).astype(int) - preprocess.decode(a_file(EIGHT, 8))).max()
        < 9
    )


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_rejects_compressed_data_that_miss_some(tmp_path: Path, syntax: str) -> None:
    whole = dcmread(io.BytesIO(compressed(tmp_path, a_file(), getattr(gdcm.TransferSyntax, syntax))))
    frame = get_frame(whole.PixelData, 0, number_of_frames=1)
    for share in (0.5, 0.7, 0.9):
        whole.PixelData = encapsulate([(cut := frame[: int(share * len(frame))] + b"\xff\xd9") + bytes(len(cut) % 2)])
        with pytest.raises(Unreadable):
            preprocess.decode(written(whole))


def test_rejects_frames_made_to_keep_a_decoder_busy() -> None:
    with pytest.raises(Unreadable, match=r"^too_large: the JPEG has more than 50 scans"):
        preprocess.decode(encapsulated(make_scan_bomb(64, 2000), uid.JPEGBaseline8Bit, Rows=64, Columns=64))
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, 80, 64, 0, 0, 1, 1, 0, 0, 1, 7, 1, 1)
    tiles = b"\xff\x4f\xff\x51" + size.replace(struct.pack(">II", 80, 64), struct.pack(">II", 9000, 9000))
    with pytest.raises(Unreadable, match=r"^too_large: the compressed pixel data have more than 65535 tiles"):
        preprocess.decode(encapsulated(tiles + bytes(50) + b"\xff\xd9", uid.JPEG2000))


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", *LOSSLESS])
def test_rejects_frame_of_another_size(tmp_path: Path, syntax: str) -> None:
    """A decoder takes the size of the frame, whatever the header says."""
    image, bits = (EIGHT, 8) if "Baseline" in syntax else (TWELVE, 12)
    dataset = dcmread(io.BytesIO(compressed(tmp_path, a_file(image, bits), getattr(gdcm.TransferSyntax, syntax))))
    dataset.Rows, dataset.Columns = dataset.Columns, dataset.Rows
    with pytest.raises(Unreadable, match=r"^undecodable: compressed pixel data of 80 x 64 pixels and 1 components"):
        preprocess.decode(written(dataset))
