"""The secondary capture of a result: the film with the heatmaps of its positive findings, for any viewer."""

import numpy as np
from highdicom.enum import CoordinateSystemNames, PatientOrientationValuesBiped
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from chestai.imaging.preprocess import Grey
from chestai.results.dicom.evidence import select_positives
from chestai.results.dicom.header import clean_header
from chestai.results.dicom.instance import Device, describe_instance, finish
from chestai.results.dicom.picture import draw_picture
from chestai.results.film_result import FilmResult

ANY_AXES = (PatientOrientationValuesBiped.L, PatientOrientationValuesBiped.F)  # until the film's own are written


def build_picture(
    result: FilmResult, header: Dataset, grey: Grey, evidence: NDArray[np.float32], device: Device
) -> SCImage | None:
    """Builds the picture: a panel for each positive finding, with the notice burned in.

    Args:
        header: Of the film; pixels are not needed.
        grey: uint8 (H, W), the film as `chestai.imaging.preprocess.decode` gives it.
        evidence: float32 (F, h, w), as for `select_positives`.
        device: What makes the picture.

    Returns:
        None if no finding is positive, or the endpoint shows no findings.

    Raises:
        ValueError: The film has no valid UIDs or is not the result's, or the maps do not fit the findings.
    """
    clean = clean_header(header, result)
    panels = select_positives(result, evidence)
    if not panels:
        return None
    capture = SCImage(
        pixel_array=draw_picture(result, grey, panels),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system=CoordinateSystemNames.PATIENT,
        patient_orientation=ANY_AXES,
        study_instance_uid=clean.StudyInstanceUID,
        patient_id=clean.PatientID,
        patient_birth_date=clean.PatientBirthDate,
        patient_sex=clean.PatientSex,
        accession_number=clean.AccessionNumber,
        study_id=clean.StudyID,
        study_date=clean.StudyDate,
        study_time=clean.StudyTime,
        specific_character_set=clean.SpecificCharacterSet,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **describe_instance(result, "sc", device),
    )
    capture.Laterality = clean.get("Laterality", "")  # a validator wants it though the chest is not a paired part
    capture.BurnedInAnnotation = "YES"
    if "IssuerOfPatientID" in clean:
        capture.IssuerOfPatientID = clean.IssuerOfPatientID
    finish(capture, clean)
    return capture
