"""Headers from outside may be anything: what goes on is valid, or the film is refused in one line."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import validate_value

from chestai.results.dicom.header import clean_header, without_names
from tests.chestai.results.dicom.films import film_header, result_of

COPIED = {
    "PatientID": "p1",
    "PatientName": "Müller^Jörg",
    "PatientBirthDate": "19501224",
    "PatientSex": "F",
    "StudyDate": "20201224",
    "StudyTime": "101112.123",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "SOPInstanceUID": "1.2.3.4",
    "Rows": 256,
}


def clean(dataset: Dataset) -> Dataset:
    return clean_header(dataset, result_of(dataset))


def test_header_is_copied_in_utf8_and_nothing_else() -> None:
    copy = clean(film_header())
    assert {keyword: copy[keyword].value for keyword in COPIED} == COPIED
    assert copy.SpecificCharacterSet == "ISO_IR 192"
    assert "PatientComments" not in copy and "BitsStored" not in copy and "IssuerOfPatientID" not in copy


def test_missing_values_of_type_2_are_empty() -> None:
    dataset = film_header()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyID"):
        delattr(dataset, keyword)
    copy = clean(dataset)
    assert copy.PatientName == "" and copy.PatientID == "" and copy.StudyDate == "" and copy.StudyID == ""


@pytest.mark.parametrize(
    ("keyword", "wrong", "kept"),
    [
        ("PatientBirthDate", "19501324", ""),
        ("PatientBirthDate", "1950", ""),
        ("StudyDate", "2020-12-24", ""),
        ("StudyTime", "10:11:12", ""),
        ("StudyTime", "2560", ""),
        ("StudyTime", "1011", "1011"),
        ("PatientSex", "female", ""),
        ("PatientSex", "m", "M"),
        ("PatientID", "7" * 65, ""),  # a shortened one might be another patient's
        ("PatientID", ["p1", "p2"], ""),
        ("AccessionNumber", "7" * 17, ""),
        ("StudyID", "one\ntwo", ""),
        ("PatientName", "x" * 100, "x" * 64),
        ("PatientName", "a^b^c^d^e^f=g", "a^b^c^d^e=g"),
        ("PatientName", "山田^太郎\x1b=x", "山田^太郎=x"),
        ("Modality", "MR", "DX"),
    ],
)
def test_values_that_the_standard_forbids_do_not_go_on(keyword: str, wrong: Any, kept: str) -> None:
    copy = clean(film_header(SpecificCharacterSet="ISO_IR 192", **{keyword: wrong}))
    assert str(copy[keyword].value) == kept


@pytest.mark.parametrize("wrong", ["", "L", ["L", "left"], ["L", "F", "A"]])
def test_impossible_orientation_is_not_copied(wrong: Any) -> None:
    assert "PatientOrientation" not in clean(film_header(PatientOrientation=wrong))


def test_issuer_goes_with_the_identifier_alone() -> None:
    assert clean(film_header(IssuerOfPatientID="St. Elsewhere")).IssuerOfPatientID == "St. Elsewhere"
    assert "IssuerOfPatientID" not in clean(film_header(IssuerOfPatientID="St. Elsewhere", PatientID=""))


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("wrong", ["", "1", "1.2.x", "1." * 40 + "1"])
def test_film_without_valid_uids_is_refused(keyword: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"the film has no valid {keyword}"):
        clean(film_header(**{keyword: wrong}))


def test_header_of_another_film_is_refused() -> None:
    result = result_of(film_header())
    other = replace(result, film=replace(result.film, sop_instance="1.2.3.5"))
    with pytest.raises(ValueError, match="the header is of another film"):
        clean_header(film_header(), other)


def test_copy_without_names_leaves_the_header_as_it_is() -> None:
    copy = clean(film_header())
    assert without_names(copy).PatientName == "" and copy.PatientName == "Müller^Jörg"


COPIED_ELEMENTS = st.sampled_from(
    [*COPIED, "IssuerOfPatientID", "ReferringPhysicianName", "Modality", "Columns", "Laterality", "PatientOrientation"]
).filter(lambda keyword: keyword != "SOPInstanceUID")


def damage(keyword: str, data: bytes) -> RawDataElement:
    """An element as a file holds it, of any bytes."""
    return RawDataElement(Tag(tag_for_keyword(keyword) or 0), dictionary_VR(keyword), len(data), data, 0, False, True)


@given(
    st.dictionaries(COPIED_ELEMENTS, st.binary(max_size=200)), st.sampled_from(["ISO_IR 192", "GB18030", "nonsense"])
)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_give_a_valid_header(elements: dict[str, bytes], characters: str) -> None:
    dataset = film_header(SpecificCharacterSet=characters)
    result = result_of(dataset)
    for keyword, data in elements.items():
        dataset._dict[Tag(tag_for_keyword(keyword) or 0)] = damage(keyword, data)  # as a file's reader puts it
    copy = clean_header(dataset, result)
    for element in copy:
        for value in element.value if element.VM > 1 else [element.value]:
            validate_value(element.VR, value, RAISE)
        str(element.value).encode()
