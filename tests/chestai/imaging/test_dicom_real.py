"""DICOM as PACS, anonymisers and detectors write it: views, body parts, missing tags, tables of too few bits."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite, uid
from pydicom.encaps import encapsulate

from chestai.imaging import preprocess, sandbox
from chestai.imaging.errors import Unreadable
from tests.serve.support.forgery import make_jpeg
from tests.support.dicom import EIGHT, TWELVE, a_file, header, written


def view_code(value: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SRT", meaning
    return [item]


def reason(data: bytes) -> str:
    with pytest.raises(Unreadable) as refused:
        preprocess.decode(data)
    return refused.value.reason


@pytest.mark.parametrize(
    "elements",
    [
        {"ViewCodeSequence": view_code("R-10236", "left lateral")},
        {"ViewCodeSequence": view_code("399173006", "")},
        {"ViewPosition": "PA", "ViewCodeSequence": view_code("R-10236", "Left lateral")},
        {"ViewCodeSequence": view_code("1", "antero-posterior left lateral decubitus")},
        {"PatientOrientation": ["A", "F"]},
        {"PatientOrientation": ["P", "F"]},
        {"PatientOrientation": ["F", "A"]},
        {"SeriesDescription": "Thorax lat."},
        {"ProtocolName": "CHEST LATERAL"},
    ],
)
def test_lateral_that_view_position_does_not_name_is_refused(elements: dict[str, Any]) -> None:
    assert reason(a_file(**elements)) == "not_frontal"


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({}, None),
        ({"ViewPosition": "PA L"}, None),
        ({"ViewCodeSequence": view_code("R-10214", "postero-anterior")}, "PA"),
        ({"ViewCodeSequence": view_code("R-10206", "antero-posterior")}, "AP"),
        ({"ViewPosition": "AP", "PatientOrientation": ["A", "F"]}, "AP"),
        ({"PatientOrientation": ["L", "F"]}, None),
        ({"PatientOrientation": ["RA", "F"]}, None),
        ({"SeriesDescription": "Chest PA/LAT"}, None),
        ({"SeriesDescription": "L", "ProtocolName": "Thorax"}, None),
        ({"ViewPosition": "PA", "SeriesDescription": "lateral"}, "PA"),
    ],
)
def test_view_that_may_be_frontal_is_read(elements: dict[str, Any], view: str | None) -> None:
    data = a_file(**elements)
    assert sandbox.read_facts(data).view == view and preprocess.decode(data).shape == TWELVE.shape


@pytest.mark.parametrize(
    "part",
    [
        "T\xd3RAX",
        "TÓRAX".encode().decode("latin-1"),
        "THX",
        "CXR",
        "UNKNOWN",
        "",
        "Thorax p.a.",
        "LUNGS",
        "N/A",
        "PULMONES",
    ],
)
def test_body_part_that_means_the_chest_or_nothing_is_read(part: str) -> None:
    assert preprocess.decode(a_file(BodyPartExamined=part)).shape == TWELVE.shape


@pytest.mark.parametrize("part", ["HAND", "T SPINE", "ABDOMEN", "BREAST", "Brust", "PELVIS", "SKULL"])
def test_other_body_parts_are_refused(part: str) -> None:
    assert reason(a_file(BodyPartExamined=part)) == "not_a_chest"


KEPT = (
    *("PatientSex", "PatientAge", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)


def anonymised(**elements: Any) -> Dataset:
    """Only sex, age and image tags; UIDs in the file meta alone."""
    dataset = header(TWELVE, 12, PatientSex="F", PatientAge="050Y", **elements)
    for element in list(dataset):
        if element.keyword not in KEPT:
            del dataset[element.tag]
    return dataset


def test_anonymised_file_is_read() -> None:
    data = written(anonymised())
    assert np.array_equal(preprocess.decode(data), preprocess.decode(a_file()))
    facts = sandbox.read_facts(data)
    assert (facts.image_id, facts.patient_id, facts.study_id) == ("1.2.3.4", None, None)
    assert (facts.age_years, facts.sex, facts.view) == (50.0, "F", None)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize("preamble", [True, False])
def test_file_without_transfer_syntax_or_preamble_is_read(syntax: str, preamble: bool) -> None:
    dataset, file = header(TWELVE, 12), io.BytesIO()
    meta = dataset.file_meta
    del dataset.file_meta, meta.TransferSyntaxUID
    implicit = syntax == uid.ImplicitVRLittleEndian
    dcmwrite(file, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    body = file.getvalue()[132 * (file.getvalue()[128:132] == b"DICM") :]
    data = bytes(128) + b"DICM" + body if preamble else body
    assert np.array_equal(preprocess.decode(data), preprocess.decode(a_file()))
    assert sandbox.read_facts(data).patient_id == "p1"
    with_meta = written(header(TWELVE, 12, syntax=syntax))[132:]
    assert np.array_equal(preprocess.decode(with_meta), preprocess.decode(a_file()))


def test_other_bytes_that_begin_like_a_data_set_are_no_image() -> None:
    for data in (
        b"\x08\0\x05\0" + b"\x02\0\0\0" + bytes(400),
        b"\x08\0\x05\0CS" + bytes(400),
        b"\x02\0\0\0UL" + bytes(300),
    ):
        assert reason(data) in ("not_an_image", "truncated", "undecodable")


def lut(bits: int, entries: list[int]) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), 0, bits])
    item.add_new("LUTData", "US", entries)
    return [item]


@pytest.mark.parametrize("declared", [8, 12, 16])
def test_full_scale_of_a_table_is_that_of_its_largest_entry(declared: int) -> None:
    grey = preprocess.decode(a_file(VOILUTSequence=lut(declared, list(range(4096)))))
    assert np.array_equal(grey, np.rint(TWELVE * (255 / 4095)).astype(np.uint8))


def test_jpeg_fragment_may_be_padded_with_zeros() -> None:
    frame = make_jpeg(EIGHT)
    plain, padded = (
        a_file(EIGHT, 8, PixelData=encapsulate([frame + bytes(count + len(frame) % 2)]), syntax=uid.JPEGBaseline8Bit)
        for count in (0, 200)
    )
    assert np.array_equal(preprocess.decode(padded), preprocess.decode(plain))
