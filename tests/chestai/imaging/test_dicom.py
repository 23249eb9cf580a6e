"""DICOM: grey levels of the standard, rejections by header, damaged files, and no patient data in any message."""

import io
import traceback
import zlib  # noqa: F401  (before gdcm, whose own zlib would take its place)
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from chestai.imaging import preprocess, sandbox
from chestai.imaging.dicom.header import Facts
from chestai.imaging.errors import REASONS, Unreadable
from tests.support.dicom import EIGHT, SIGNED, TWELVE, a_file, compressed, header, written

NOT_FRONTAL = [
    "LL",
    "RL",
    "lateral",
    "LLO",
    "AP OBLIQUE",
    "RLD",
    "SWIMMERS",
    "LORDOTIC",
    "L",
    "R",
    "XTABLE",
    "X-TABLE LAT",
    "Seitl.",
]
LOSSLESS = ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]


def lut(first: int, bits: int, entries: list[int], vr: str = "US") -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    data = entries if vr == "US" else np.array(entries, "u1" if vr == "packed" else "<u2").tobytes()
    item.add_new("LUTData", "US" if vr == "US" else "OW", data)
    return [item]


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values.astype(float) - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "bits"), [(EIGHT, 8), (TWELVE, 12), (TWELVE * 18, 16), (SIGNED, 13), (TWELVE.astype(np.int16), 16)]
)
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_file_without_window_is_scaled_to_its_value_range(image: np.ndarray, bits: int, syntax: str) -> None:
    data = a_file(image, bits, syntax=syntax)
    assert np.array_equal(preprocess.decode(data), scaled(image, image.min(), image.max()))
    assert preprocess.read_header(data) == preprocess.Header("DICOM", 64, 80, 1)


def test_constant_image_is_black() -> None:
    assert not preprocess.decode(a_file(np.full_like(TWELVE, 7))).any()


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1500, "WindowWidth": 2000}])
def test_monochrome1_and_inverse_shape_invert_once(window: dict[str, Any]) -> None:
    mirrored = 255 - preprocess.decode(a_file(**window))
    polarities: list[dict[str, Any]] = [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ]
    for elements in polarities:
        assert np.array_equal(preprocess.decode(a_file(**window, **elements)), mirrored)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of pydicom
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("image", [TWELVE, SIGNED])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.5, "RescaleIntercept": -100}])
@pytest.mark.parametrize("window", [([1000.5, 7], [801.25, 9]), (300, 1), (1700, 5000)])
def test_window_equals_pydicom(function: str | None, image: np.ndarray, rescale: dict, window: tuple) -> None:
    elements = {"WindowCenter": window[0], "WindowWidth": window[1], **rescale}
    if function:
        elements["VOILUTFunction"] = function
    dataset = dcmread(io.BytesIO(data := a_file(image, 13, **elements)))
    theirs = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    slope, intercept = rescale.get("RescaleSlope", 1), rescale.get("RescaleIntercept", 0)
    least = -4096 if image is SIGNED else 0
    expected = scaled(theirs, least * slope + intercept, (least + 8191) * slope + intercept)
    assert np.abs(preprocess.decode(data).astype(int) - expected).max() <= 1
    assert len(np.unique(expected)) >= 2


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize(("first", "bits", "count"), [(0, 12, 4096), (500, 16, 1000)])
def test_voi_lut_equals_pydicom_and_precedes_the_window(first: int, bits: int, count: int, vr: str) -> None:
    entries = (np.sqrt(np.linspace(0, 1, count)) * (2**bits - 1)).astype(int).tolist()
    elements: dict[str, Any] = {"VOILUTSequence": lut(first, bits, entries, vr), "WindowCenter": 9, "WindowWidth": 9}
    dataset = dcmread(io.BytesIO(data := a_file(**elements)))
    assert np.array_equal(preprocess.decode(data), scaled(apply_voi(dataset.pixel_array, dataset), 0, 2**bits - 1))


def test_reads_long_and_packed_eight_bit_luts() -> None:
    entries = (np.arange(4096) // 16).tolist()
    for vr in ("US", "OW", "packed"):
        assert np.array_equal(preprocess.decode(a_file(VOILUTSequence=lut(0, 8, entries, vr))), EIGHT)


def test_modality_lut_precedes_the_window() -> None:
    entries = (4000 - np.arange(4096)).clip(0).tolist()
    data = a_file(SIGNED, 13, ModalityLUTSequence=lut(-1000, 16, entries, "OW"), WindowCenter=2000, WindowWidth=3000)
    plain = a_file((4000 - TWELVE).astype(np.uint16), WindowCenter=2000, WindowWidth=3000)
    assert np.array_equal(preprocess.decode(data), preprocess.decode(plain))


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 3990])
def test_padding_is_black_and_not_part_of_the_value_range(polarity: str, limit: int | None) -> None:
    padded = TWELVE.copy()
    padded[:10], padded[10:12] = 4000, 4000 if limit is None else 3995
    elements = {"PixelPaddingValue": 4000, **({} if limit is None else {"PixelPaddingRangeLimit": limit})}
    grey = preprocess.decode(a_file(padded, PhotometricInterpretation=polarity, **elements))
    inside = scaled(TWELVE[12:], TWELVE[12:].min(), TWELVE.max())
    assert not grey[:12].any()
    assert np.array_equal(grey[12:], inside if polarity == "MONOCHROME2" else 255 - inside)


def run_length(image: np.ndarray, bits: int) -> bytes:
    dataset = header(image, bits)
    dataset.compress(uid.RLELossless)
    return written(dataset)


@pytest.mark.parametrize(("image", "bits"), [(EIGHT, 8), (TWELVE, 12), (SIGNED, 13)])
def test_rle_deflate_and_big_endian_keep_the_pixels(image: np.ndarray, bits: int) -> None:
    grey = preprocess.decode(a_file(image, bits))
    assert np.array_equal(preprocess.decode(run_length(image, bits)), grey)
    assert np.array_equal(preprocess.decode(a_file(image, bits, syntax=uid.DeflatedExplicitVRLittleEndian)), grey)
    swapped = header(image, bits, syntax=uid.ExplicitVRBigEndian)
    swapped.PixelData = image.byteswap().tobytes() if image.itemsize == 2 else image.tobytes()
    swapped["PixelData"].VR = "OB" if image.itemsize == 1 else "OW"
    assert np.array_equal(preprocess.decode(written(swapped)), grey)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        *[({"Modality": modality}, "not_a_radiograph") for modality in ("CT", "MG", "RF")],
        ({"Modality": "", "SOPClassUID": uid.CTImageStorage}, "not_a_radiograph"),
        *[({"BodyPartExamined": part}, "not_a_chest") for part in ("HAND", "TSPINE", "ABDOMEN")],
        *[({"ViewPosition": view}, "not_frontal") for view in NOT_FRONTAL],
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        *[({"PhotometricInterpretation": name}, "colour") for name in ("PALETTE COLOR", "YBR_FULL")],
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"Columns": 16}, "too_small"),
        ({"Rows": 65}, "truncated"),
        ({"Rows": None}, "undecodable"),
        ({"HighBit": 15}, "unsupported_format"),
        ({"PixelRepresentation": 2}, "undecodable"),
    ],
)
def test_every_reader_rejects_by_header_with_the_same_reason(elements: dict[str, Any], reason: str) -> None:
    for ask in (preprocess.read_header, sandbox.read_facts, preprocess.decode):
        with pytest.raises(Unreadable) as refused:
            ask(a_file(**elements))
        assert refused.value.reason == reason
        assert reason in REASONS


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: a_file().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"), "unsupported_format"),
        (lambda: a_file()[:132], "not_an_image"),
        *[
            (partial(a_file, WindowCenter=center, WindowWidth=width), "undecodable")
            for center, width in (
                (10, 0),
                (10, -5),
                ("inf", 100),
                (100, "inf"),
                ("nan", 100),
                (1e300, 100),
                (10, 1e300),
            )
        ],
        (lambda: a_file(WindowCenter=1e6, WindowWidth=10), "undecodable"),
        (lambda: a_file(RescaleSlope=0, RescaleIntercept=5), "undecodable"),
        (lambda: a_file(RescaleSlope=0, RescaleIntercept=5, WindowCenter=5, WindowWidth=10), "undecodable"),
        (lambda: a_file(VOILUTSequence=lut(5000, 16, list(range(4096)))), "undecodable"),
        (lambda: a_file(RescaleSlope="1e308", RescaleIntercept="0"), "undecodable"),
        (lambda: a_file(VOILUTSequence=lut(0, 40, [1, 2])), "undecodable"),
        (lambda: a_file(PixelData=encapsulate([bytes(30_000)]), syntax=uid.RLELossless), "undecodable"),
    ],
)
def test_rejects_undecodable_file(data: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(Unreadable, match=rf"^{reason}"):
        preprocess.decode(data())


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PatientAge": "058Y", "PatientSex": "F ", "ViewPosition": "AP"}, (58.0, "F", "AP")),
        ({"PatientAge": "006M", "PatientSex": "O", "ViewPosition": "PA"}, (0.5, None, "PA")),
        ({"PatientAge": "999Y", "BodyPartExamined": "Port Chest"}, (None, None, None)),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200614"}, (69.0, None, None)),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200615"}, (70.0, None, None)),
        ({"PatientBirthDate": "20500615", "StudyDate": "20200615"}, (None, None, None)),
        ({"PatientBirthDate": "19501301", "StudyDate": "20200615"}, (None, None, None)),
    ],
)
def test_reads_patient_facts(elements: dict[str, Any], expected: tuple[float | None, str | None, str | None]) -> None:
    day = elements.get("StudyDate")
    studied_on = day and f"{day[:4]}-{day[4:6]}-{day[6:]}"
    assert sandbox.read_facts(a_file(**elements)) == Facts("1.2.3.4", "p1", "1.2.3", *expected, 64, 80, studied_on)


@pytest.mark.parametrize(
    ("study", "film", "expected"),
    [("20200615", "20200614", "2020-06-15"), ("20201301", "20200614", "2020-06-14"), ("", "2020-06", None)],
)
def test_reads_the_day_of_a_study(study: str, film: str, expected: str | None) -> None:
    assert sandbox.read_facts(a_file(StudyDate=study, AcquisitionDate=film)).studied_on == expected


@pytest.mark.parametrize(("image", "bits"), [(EIGHT, 8), (TWELVE, 12)])
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_rejects_pixel_data_longer_than_the_image(image: np.ndarray, bits: int, syntax: str) -> None:
    """With too few columns in the header each row would begin where the last one did not end."""
    changes: list[dict[str, Any]] = [{"Columns": 79}, {"Rows": 40}, {"PixelData": image.tobytes() + bytes(2)}]
    for elements in changes:
        with pytest.raises(Unreadable, match=r"^undecodable: .* bytes of pixel data for an image of"):
            preprocess.decode(a_file(image, bits, syntax=syntax, **elements))
    odd = EIGHT[:63, :79]
    assert np.array_equal(
        preprocess.decode(a_file(odd, 8, PixelData=odd.tobytes() + b"\0")), scaled(odd, odd.min(), odd.max())
    )


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_voi_lut_may_begin_at_a_negative_number_of_unsigned_pixels(syntax: str) -> None:
    """Without a VR in the file the first number of the table's descriptor is read as unsigned."""
    entries = list(range(0, 65536, 16))
    rescale: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    table = lut(64536, 16, entries) if syntax == uid.ImplicitVRLittleEndian else lut(-1000, 16, entries)
    grey = preprocess.decode(a_file(VOILUTSequence=table, syntax=syntax, **rescale))
    assert np.array_equal(grey, scaled(TWELVE * 16, 0, 65535))


@pytest.mark.parametrize("image", [TWELVE, SIGNED])
def test_ignores_bits_above_those_stored(image: np.ndarray) -> None:
    """Old files keep overlays there."""
    bits = 13
    marked = image & np.array(2**bits - 1, image.dtype)
    marked[::3] |= np.array(0xE000, np.uint16).astype(image.dtype)
    assert np.array_equal(preprocess.decode(a_file(marked, bits)), scaled(image, image.min(), image.max()))


def private() -> bytes:
    names: dict[str, Any] = {
        "PatientName": "Doe^Secret",
        "PatientBirthDate": "19501301",
        "PatientComments": "Doe Secret",
    }
    return a_file(**names, PatientAge="Secret", PatientSex="Secret", BodyPartExamined="CHEST", WindowWidth=2000)


def kinds(folder: Path) -> list[bytes]:
    packed = [compressed(folder, private(), getattr(gdcm.TransferSyntax, name)) for name in LOSSLESS[1:]]
    return [private(), a_file(syntax=uid.DeflatedExplicitVRLittleEndian), run_length(TWELVE, 12), *packed]


def test_damaged_file_is_rejected_without_showing_patient_data(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    random, texts, whole = np.random.default_rng(0), [repr(sandbox.read_facts(private()))], 0
    for data in kinds(tmp_path):
        recwarn.clear()
        for turn in range(200):
            damaged = bytearray(data if turn % 3 else data[: random.integers(132, len(data))])
            end = len(damaged) if turn % 2 else min(len(damaged), 800)
            for place in random.integers(132, end + 1, 3):
                damaged[place - 1] = random.integers(0, 256)
            try:
                whole += preprocess.decode(bytes(damaged)).size > 0
            except Unreadable as error:
                assert error.reason in REASONS
                texts.append("".join(traceback.format_exception(error)))
        texts += [str(warning.message) for warning in recwarn]
    texts += [caplog.text, *capfd.readouterr()]
    assert len(texts) > 100 and whole > 20
    assert not any(word in text for text in texts for word in ("Doe", "Secret", "19501301"))
