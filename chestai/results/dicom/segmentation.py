"""The segmentation of a result: the heatmaps of its positive findings for machines, on the pixels of the film."""

import numpy as np
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationFractionalTypeValues,
    SegmentationTypeValues,
    SegmentDescription,
)
from numpy.typing import NDArray
from pydicom import Dataset

from chestai.imaging.heatmap import heatmap
from chestai.results.dicom import codes
from chestai.results.dicom.evidence import select_positives
from chestai.results.dicom.header import clean_header, without_names
from chestai.results.dicom.instance import MANUFACTURER, Device, describe_instance, finish
from chestai.results.dicom.text import LONG_STRING, clean_text
from chestai.results.dicom.uids import derive_uid
from chestai.results.film_result import FilmResult, FindingResult

CONTENT_LABEL = "EVIDENCE"
DESCRIPTION = "Grad-CAM, scaled to each peak: not a calibrated probability"
THINGS = {"Support_Devices"}  # findings that are no abnormal structure of the body


def build_segmentation(
    result: FilmResult, header: Dataset, evidence: NDArray[np.float32], device: Device
) -> Segmentation | None:
    """Builds a fractional segmentation with a segment for each positive finding.

    A value is the evidence there relative to the finding's peak, 0 to 255. The standard knows two fractional types
    (PS3.3 C.8.20.2.3): the part of a pixel that a structure fills, OCCUPANCY, which an evidence map does not measure at
    all, and the chance that the structure is there, PROBABILITY, which it orders but does not calibrate. The second is
    nearer, and the object says that it is not calibrated.

    Args:
        header: Of the film, with Rows and Columns; pixels are not needed.
        evidence: float32 (F, h, w), as for `select_positives`.
        device: What makes the segmentation.

    Returns:
        None if no finding is positive, or the endpoint shows no findings.

    Raises:
        ValueError: The film has no valid UIDs or size or is not the result's, or the maps do not fit the findings.
    """
    clean = clean_header(header, result)
    positives = select_positives(result, evidence)
    if not positives:
        return None
    if "Rows" not in clean or "Columns" not in clean:
        raise ValueError("the film has no valid Rows and Columns")
    maps = np.stack([heatmap(plane, clean.Rows, clean.Columns) for _, plane in positives], axis=-1)
    segmentation = Segmentation(
        source_images=[without_names(clean)],
        pixel_array=maps[np.newaxis],
        segmentation_type=SegmentationTypeValues.FRACTIONAL,
        fractional_type=SegmentationFractionalTypeValues.PROBABILITY,
        segment_descriptions=[_describe(number, finding, result) for number, (finding, _) in enumerate(positives, 1)],
        content_label=CONTENT_LABEL,
        content_description=DESCRIPTION,
        omit_empty_frames=False,
        **describe_instance(result, "seg", device),
    )
    dimensions = derive_uid("dimensions", segmentation.SOPInstanceUID)  # highdicom's own is random
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    finish(segmentation, clean)
    return segmentation


def _describe(number: int, finding: FindingResult, result: FilmResult) -> SegmentDescription:
    name = codes.label(finding.finding) or "Finding"
    algorithm = AlgorithmIdentificationSequence(
        name=clean_text(result.model, LONG_STRING),
        family=codes.ARTIFICIAL_INTELLIGENCE,
        version=str(result.version),
        source=MANUFACTURER,
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.PHYSICAL_OBJECT if finding.finding in THINGS else codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.finding_code(finding.finding),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_id=name,
        tracking_uid=derive_uid("tracking", result.film.sop_instance, result.model, str(result.version), name),
    )
