"""The structured report of a result: TID 1500 (PS3.16) as a Comprehensive SR, observed by a device."""

from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr.value_types import ContentSequence
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ComprehensiveSRStorage
from pydicom.valuerep import DT

from chestai.results.dicom import codes
from chestai.results.dicom.header import clean_header, without_names
from chestai.results.dicom.instance import MANUFACTURER, Device, describe_instance, finish, name_model
from chestai.results.dicom.text import LONG_STRING, clean_name, clean_text
from chestai.results.dicom.uids import derive_uid, instance_uid, series_uid
from chestai.results.film_result import FilmResult, FindingResult, ReviewedFinding
from chestai.results.notices import list_notices
from chestai.results.report_text.catalogue import load_catalogue
from chestai.results.report_text.impression import write_outgoing


def build_report(result: FilmResult, header: Dataset, device: Device, language: str | None = None) -> ComprehensiveSR:
    """Builds the report of a result.

    It says how soon the study should be read and, where the endpoint shows numbers, of each finding its certainty, the
    operating point, whether it is reached, and each verdict; where wanted, it has a draft of the impression. It is
    partial and preliminary until a reviewer has spoken, then complete and final, and names the revision before it. It
    is never verified: a verdict is not a signature of somebody who is accountable for the document (PS3.3 C.17.2).

    Args:
        result: Without findings, the report tells the bucket alone.
        header: Of the film; pixels are not needed.
        device: The observer.
        language: Of the draft of the impression, see `write_outgoing`; None for none.

    Raises:
        ValueError: The film has no valid UIDs, or is not the result's.
    """
    clean = clean_header(header, result)
    arguments = describe_instance(result, "sr", device)
    report = ComprehensiveSR(
        evidence=[without_names(clean)],
        content=_content(result, clean, device, language),
        is_complete=result.reviewed,
        is_final=result.reviewed,
        previous_versions=_predecessors(result, clean),
        performed_procedure_codes=[codes.IMAGING_PROCEDURE],
        **arguments,
    )
    finish(report, clean)
    return report


def _content(result: FilmResult, header: Dataset, device: Device, language: str | None) -> MeasurementReport:
    observer = DeviceObserverIdentifyingAttributes(
        uid=device.uid,
        name=clean_text(device.name, LONG_STRING) or MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=name_model(result),
    )
    names = [finding.finding for finding in result.findings]
    if names:  # else the endpoint shows no findings, and a verdict would tell one
        names += [review.finding for review in result.reviews]
    report = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(CodedConcept.from_code(codes.DEVICE), observer)
        ),
        procedure_reported=codes.IMAGING_PROCEDURE,
        imaging_measurements=[
            _triage_group(result, header),
            *(_finding_group(name, result, header) for name in dict.fromkeys(names)),
        ],
    )
    if text := write_outgoing(result, language):
        report[0].ContentSequence.append(_impression(text, str(language)))
    return report


def _impression(text: str, language: str) -> ContainerContentItem:
    """The qualitative evaluations of TID 1500, of which the draft is the only one. language: a code of RFC 5646."""
    item = TextContentItem(codes.IMPRESSION, text.replace("\n", "\r\n"), RelationshipTypeValues.CONTAINS)
    spoken = CodedConcept(language, "RFC5646", load_catalogue(language).title)
    item.ContentSequence = ContentSequence(LanguageOfContentItemAndDescendants(spoken))
    evaluations = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=RelationshipTypeValues.CONTAINS)
    evaluations.ContentSequence = ContentSequence([item])
    return evaluations


def _triage_group(result: FilmResult, header: Dataset) -> MeasurementsAndQualitativeEvaluations:
    """How soon the study should be read, the score behind it, and the notice."""
    measurements = [] if result.score is None else [_percent(codes.TRIAGE_SCORE, result.score)]
    bucket = QualitativeEvaluation(codes.TRIAGE_BUCKET, codes.BUCKETS[result.bucket])
    group = _group("Triage", result, header, None, measurements, [bucket])
    for notice in list_notices(result):
        group[0].ContentSequence.append(TextContentItem(codes.COMMENT, notice, RelationshipTypeValues.CONTAINS))
    return group


def _finding_group(name: str, result: FilmResult, header: Dataset) -> MeasurementsAndQualitativeEvaluations:
    """What the model and the reviewers say of a finding."""
    found = [finding for finding in result.findings if finding.finding == name]
    evaluations = [evaluation for finding in found for evaluation in _evaluations(finding)]
    evaluations += [_verdict(review) for review in result.reviews if review.finding == name]
    measurements = [measurement for finding in found for measurement in _measurements(finding)]
    return _group(codes.label(name) or "Finding", result, header, codes.finding_code(name), measurements, evaluations)


def _group(
    title: str,
    result: FilmResult,
    header: Dataset,
    finding: Code | None,
    measurements: Sequence[Measurement],
    evaluations: Sequence[QualitativeEvaluation],
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501, of the film by the model."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            derive_uid("tracking", result.film.sop_instance, result.model, str(result.version), title), title
        ),
        finding_type=finding,
        algorithm_id=AlgorithmIdentification(clean_text(result.model, LONG_STRING), str(result.version)),
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
    )


def _measurements(finding: FindingResult) -> list[Measurement]:
    certainty = _percent(codes.CERTAINTY, finding.probability)
    if finding.operating_point is None:
        return [certainty]
    return [certainty, _percent(codes.OPERATING_POINT, finding.operating_point)]


def _evaluations(finding: FindingResult) -> list[QualitativeEvaluation]:
    if finding.operating_point is None:
        return []
    return [QualitativeEvaluation(codes.POSITIVE, codes.YES if finding.positive else codes.NO)]


def _percent(name: Code, part: float) -> Measurement:
    return Measurement(name, round(100 * part, 4), codes.PERCENT)


def _verdict(review: ReviewedFinding) -> QualitativeEvaluation:
    """A verdict, with who gave it and when."""
    evaluation = QualitativeEvaluation(codes.VERDICT, codes.VERDICTS[review.verdict])
    item = evaluation[0]
    item.add_new("ObservationDateTime", "DT", DT(review.at))
    reviewer = PersonObserverIdentifyingAttributes(f"{clean_name(review.reviewer) or 'unknown'}^")
    item.ContentSequence = ContentSequence(reviewer)
    return evaluation


def _predecessors(result: FilmResult, header: Dataset) -> list[Dataset] | None:
    """The report that this one replaces."""
    if not result.revision:
        return None
    film, before = result.film.sop_instance, Dataset()
    before.SOPClassUID = ComprehensiveSRStorage
    before.SOPInstanceUID = instance_uid(film, result.model, result.version, "sr", result.revision - 1)
    before.SeriesInstanceUID = series_uid(film, result.model, result.version, "sr")
    before.StudyInstanceUID = header.StudyInstanceUID
    return [before]
