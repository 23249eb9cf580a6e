"""The segmentation holds the heatmaps as the endpoint computes them, on the pixels of the film."""

from dataclasses import replace

import numpy as np
import pytest
from highdicom.seg import Segmentation

from chestai.imaging.heatmap import heatmap
from chestai.results.dicom.segmentation import DESCRIPTION, build_segmentation
from chestai.results.dicom.uids import instance_uid
from chestai.results.film_result import FindingResult
from tests.chestai.results.dicom.films import (
    DEVICE,
    SIDE,
    evidence_of,
    film_header,
    read_back,
    result_of,
    reviewed,
    with_positives,
    write,
)

HEADER = film_header()
RESULT = result_of(HEADER)
EVIDENCE = evidence_of(RESULT)


def test_each_positive_finding_is_a_segment() -> None:
    segmentation = read_back(build_segmentation(RESULT, HEADER, EVIDENCE, DEVICE))
    assert segmentation.SOPInstanceUID == instance_uid("1.2.3.4", "chestai-densenet", 7, "seg")
    labels = [segment.SegmentLabel for segment in segmentation.SegmentSequence]
    assert labels == ["Pneumothorax", "Enlarged Cardiomediastinum"]
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segmentation.SegmentSequence]
    assert [kind.CodeValue for kind in kinds] == ["36118008", "ENL_CARDIOMED"]
    algorithm = segmentation.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("chestai-densenet", "7")
    assert segmentation.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99CHESTAI"


def test_values_are_the_heatmaps() -> None:
    segmentation = read_back(build_segmentation(RESULT, HEADER, EVIDENCE, DEVICE))
    wanted = [(heatmap(EVIDENCE[number], SIDE, SIDE) * 255).round() for number in (0, 2)]
    assert (segmentation.pixel_array == np.stack(wanted)).all()
    assert 240 < segmentation.pixel_array.max() <= 255  # the peak lies between pixels


def test_values_say_that_they_are_not_calibrated() -> None:
    segmentation = read_back(build_segmentation(RESULT, HEADER, EVIDENCE, DEVICE))
    assert (segmentation.SegmentationType, segmentation.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert segmentation.MaximumFractionalValue == 255 and segmentation.ContentDescription == DESCRIPTION
    assert "not a calibrated probability" in DESCRIPTION and segmentation.ContentQualification == "RESEARCH"


def test_highdicom_finds_the_film_and_its_segments_again() -> None:
    segmentation = Segmentation.from_dataset(read_back(build_segmentation(RESULT, HEADER, EVIDENCE, DEVICE)))
    assert [str(uid) for uid in segmentation.get_source_image_uids()[0]] == ["1.2.3", "1.2.3.9", "1.2.3.4"]
    planes = segmentation.get_pixels_by_source_instance(["1.2.3.4"], rescale_fractional=True)
    assert planes.shape == (1, SIDE, SIDE, 2) and 0.95 < planes.max() <= 1


def test_film_that_is_not_square_keeps_its_pixels() -> None:
    header = film_header(Rows=300, Columns=200)
    segmentation = build_segmentation(result_of(header), header, EVIDENCE, DEVICE)
    assert segmentation is not None and (segmentation.Rows, segmentation.Columns) == (300, 200)


def test_map_without_evidence_is_an_empty_segment() -> None:
    none = np.full_like(EVIDENCE, -1)
    segmentation = read_back(build_segmentation(RESULT, HEADER, none, DEVICE))
    assert len(segmentation.SegmentSequence) == 2 and not segmentation.pixel_array.any()


def test_devices_are_things() -> None:
    result = replace(RESULT, findings=(FindingResult("Support_Devices", 1, 0.5),))
    segmentation = build_segmentation(result, HEADER, evidence_of(result), DEVICE)
    assert segmentation is not None
    assert segmentation.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Physical object"


def test_nothing_positive_makes_no_segmentation() -> None:
    negative = with_positives(RESULT, 0)
    assert build_segmentation(negative, HEADER, evidence_of(negative), DEVICE) is None
    assert build_segmentation(RESULT.without_numbers(), HEADER, EVIDENCE, DEVICE) is None


@pytest.mark.parametrize("wrong", [{"Rows": None}, {"Columns": 0}])
def test_film_without_a_size_is_refused(wrong: dict[str, int | None]) -> None:
    header = film_header(**wrong)
    with pytest.raises(ValueError, match="the film has no valid Rows and Columns"):
        build_segmentation(result_of(header), header, EVIDENCE, DEVICE)


def test_same_result_makes_the_same_bytes_whatever_the_verdict() -> None:
    first, second = (build_segmentation(result, HEADER, EVIDENCE, DEVICE) for result in (RESULT, reviewed(RESULT)))
    assert first is not None and second is not None
    assert write(first) == write(second)
