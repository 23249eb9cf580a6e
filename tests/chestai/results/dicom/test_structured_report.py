"""The report says what the model and the reviewers said, and nothing more than the endpoint shows."""

import warnings
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from chestai import RESEARCH_USE
from chestai.results.dicom.structured_report import build_report
from chestai.results.dicom.uids import instance_uid, series_uid
from chestai.results.film_result import FilmResult, ReviewedFinding
from chestai.results.notices import SYNTHETIC
from chestai.results.report_text.impression import write_impression
from tests.chestai.results.dicom.films import (
    DEVICE,
    REVIEW,
    SCORED,
    film_header,
    read_back,
    result_of,
    reviewed,
    write,
)

HEADER = film_header()
RESULT = result_of(HEADER)


def tell(item: Dataset) -> Any:
    """What a content item says."""
    match item.ValueType:
        case "NUM":
            return float(item.MeasuredValueSequence[0].NumericValue)
        case "CODE":
            return item.ConceptCodeSequence[0].CodeMeaning
        case "TEXT":
            return item.TextValue
        case "PNAME":
            return str(item.PersonName)
        case "IMAGE":
            return item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        case "UIDREF":
            return item.UID
    return None


def facts(container: Dataset) -> list[tuple[str, Any]]:
    """Name and content of each item in a container."""
    return [(item.ConceptNameCodeSequence[0].CodeMeaning, tell(item)) for item in container.ContentSequence]


def groups(report: Dataset) -> dict[str, list[tuple[str, Any]]]:
    """Title -> facts, of each measurement group."""
    containers = report.ContentSequence[-1].ContentSequence
    return {dict(facts(container))["Tracking Identifier"]: facts(container) for container in containers}


def test_report_belongs_to_the_film() -> None:
    report = read_back(build_report(RESULT, HEADER, DEVICE))
    assert report.SOPClassUID == ComprehensiveSRStorage
    assert report.SOPInstanceUID == instance_uid("1.2.3.4", "chestai-densenet", 7, "sr")
    assert report.SeriesInstanceUID == series_uid("1.2.3.4", "chestai-densenet", 7, "sr")
    assert (report.StudyInstanceUID, report.PatientID, report.AccessionNumber) == ("1.2.3", "p1", "A1")
    assert report.PatientName == "Müller^Jörg" and report.SpecificCharacterSet == "ISO_IR 192"
    assert "PatientComments" not in report
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == "1.2.3.9"
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


def test_report_is_of_template_1500_observed_by_a_device() -> None:
    report = read_back(build_report(RESULT, HEADER, DEVICE))
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    told = dict(facts(report))
    assert told["Observer Type"] == "Device" and told["Device Observer UID"] == DEVICE.uid
    assert told["Device Observer Name"] == DEVICE.name
    assert told["Device Observer Model Name"] == "chestai-densenet 7"
    assert told["Procedure reported"] == "Imaging procedure"


def test_each_finding_has_its_certainty_and_operating_point() -> None:
    told = groups(read_back(build_report(RESULT, HEADER, DEVICE)))
    assert list(told) == ["Triage", "Pneumothorax", "Cardiomegaly", "Enlarged Cardiomediastinum", "Nodule"]
    pneumothorax = dict(told["Pneumothorax"])
    assert pneumothorax["Finding"] == "Pneumothorax"
    assert pneumothorax["Certainty of Finding"] == pytest.approx(91.2346)
    assert pneumothorax["Certainty from which the finding is positive"] == 40
    assert pneumothorax["Certainty reaches the operating point"] == "Yes"
    assert (pneumothorax["Algorithm Name"], pneumothorax["Algorithm Version"]) == ("chestai-densenet", "7")
    assert pneumothorax["Source of Measurement"] == "1.2.3.4"
    assert dict(told["Cardiomegaly"])["Certainty reaches the operating point"] == "No"
    assert dict(told["Enlarged Cardiomediastinum"])["Certainty reaches the operating point"] == "Yes"  # equals it
    assert "Certainty reaches the operating point" not in dict(told["Nodule"])  # it has no operating point


def test_triage_and_notices_are_told() -> None:
    triage = groups(read_back(build_report(RESULT, HEADER, DEVICE)))["Triage"]
    assert ("How soon the study should be read", "Urgent") in triage and ("Triage score", 87.65) in triage
    assert ("Comment", RESEARCH_USE) in triage and ("Comment", SYNTHETIC) in triage
    real = groups(build_report(replace(RESULT, synthetic=False), HEADER, DEVICE))["Triage"]
    assert ("Comment", RESEARCH_USE) in real and ("Comment", SYNTHETIC) not in real


def test_report_is_preliminary_until_a_reviewer_has_spoken() -> None:
    first = read_back(build_report(RESULT, HEADER, DEVICE))
    assert (first.CompletionFlag, first.PreliminaryFlag, first.VerificationFlag) == (
        "PARTIAL",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    assert "PredecessorDocumentsSequence" not in first
    second = read_back(build_report(reviewed(RESULT), HEADER, DEVICE))
    assert (second.CompletionFlag, second.PreliminaryFlag, second.VerificationFlag) == (
        "COMPLETE",
        "FINAL",
        "UNVERIFIED",  # a verdict is no signature
    )


def test_verdict_makes_the_next_revision() -> None:
    first, second = (read_back(build_report(result, HEADER, DEVICE)) for result in (RESULT, reviewed(RESULT)))
    assert second.SOPInstanceUID != first.SOPInstanceUID and second.SeriesInstanceUID == first.SeriesInstanceUID
    assert second.InstanceNumber == 2 and second.ContentDate == "20260103"
    before = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert before.SeriesInstanceUID == first.SeriesInstanceUID
    assert before.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_verdict_names_reviewer_and_moment() -> None:
    report = read_back(build_report(reviewed(RESULT), HEADER, DEVICE))
    pneumothorax = report.ContentSequence[-1].ContentSequence[1]
    verdict = next(item for item in pneumothorax.ContentSequence if tell(item) == "False positive")
    assert verdict.ObservationDateTime == "20260103090405.678900+0000"
    assert facts(verdict) == [("Person Observer Name", "Ödön Ö^Reader^")]


def test_verdict_on_a_finding_that_the_model_does_not_know_is_told() -> None:
    result = replace(RESULT, reviews=(REVIEW, replace(REVIEW, finding="Fracture", verdict="FN")), revision=2)
    fracture = dict(groups(read_back(build_report(result, HEADER, DEVICE)))["Fracture"])
    assert fracture["Verdict of a reviewer"] == "False negative" and "Certainty of Finding" not in fracture


def test_endpoint_without_numbers_tells_the_bucket_alone() -> None:
    report = read_back(build_report(reviewed(RESULT).without_numbers(), HEADER, DEVICE))
    assert [*groups(report)] == ["Triage"]
    names = [name for name, _ in groups(report)["Triage"]]
    assert "How soon the study should be read" in names and "Triage score" not in names
    assert b"neumothorax" not in write(report)


@pytest.mark.parametrize("language", ["en", "es"])
def test_draft_of_the_impression_is_a_qualitative_evaluation(language: str) -> None:
    plain, drafted = (read_back(build_report(RESULT, HEADER, DEVICE, spoken)) for spoken in (None, language))
    *others, container = drafted.ContentSequence
    assert others == [*plain.ContentSequence], "nothing else is different"
    assert container.ConceptNameCodeSequence[0].CodeValue == "C0034375"
    (item,) = container.ContentSequence
    assert item.ConceptNameCodeSequence[0].CodeMeaning == "Impression"
    assert item.TextValue.split("\r\n") == write_impression(RESULT, language).split("\n")
    spoken = item.ContentSequence[0].ConceptCodeSequence[0]
    assert (spoken.CodeValue, spoken.CodingSchemeDesignator) == (language, "RFC5646")


@pytest.mark.parametrize("result", [reviewed(RESULT), RESULT.without_numbers()], ids=["reviewed", "bucket alone"])
def test_reviewed_and_hidden_findings_have_no_draft(result: FilmResult) -> None:
    assert write(build_report(result, HEADER, DEVICE, "en")) == write(build_report(result, HEADER, DEVICE))


@pytest.mark.parametrize("language", [None, "es"])
@pytest.mark.parametrize("result", [RESULT, reviewed(RESULT)], ids=["first", "reviewed"])
def test_same_result_makes_the_same_bytes(result: FilmResult, language: str | None) -> None:
    one, other = (write(build_report(result, header, DEVICE, language)) for header in (HEADER, film_header()))
    assert one == other


def test_times_are_in_the_zone_of_the_score() -> None:
    report = build_report(RESULT, HEADER, DEVICE)
    assert (str(report.ContentDate), str(report.ContentTime)) == ("20260102", "030405.678900")
    assert report.InstanceCreationTime == report.ContentTime


def test_unusual_names_are_not_printed() -> None:
    header = film_header(PatientName="Onlyname", ReferringPhysicianName="Another")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = build_report(result_of(header), header, DEVICE)
    assert (report.PatientName, report.ReferringPhysicianName) == ("Onlyname", "Another")


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=100), st.text(max_size=100), st.text(max_size=100))
def test_any_names_of_models_findings_and_reviewers_fit(model: str, finding: str, reviewer: str) -> None:
    review = ReviewedFinding(finding, "unsure", reviewer, SCORED - timedelta(days=1))
    result = replace(RESULT, model=model or "m", reviews=(review,), revision=1)
    report = read_back(build_report(result, HEADER, DEVICE))
    assert len(report.ContentSequence[-1].ContentSequence) == 1 + len({*(f.finding for f in result.findings), finding})
