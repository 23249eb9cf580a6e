"""Coded concepts of the reports: findings, measurements, verdicts, triage.

A standard code is used only where pydicom's copy of the DICOM dictionaries holds it with the very meaning; all else is
of the private scheme 99CHESTAI, which every object that uses it declares (PS3.3 C.12.1.1.7). Not used on purpose:

- SCT 287272002, which the dictionaries list as "Cardiomegaly" (of a fetus) and as "Enlarged septal foramen of heart".
- DCM 111071, "CAD Operating Point": the number of a point on an ROC curve, not the threshold itself.
"""

import hashlib

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.coding import Code

from chestai.results.dicom.text import clean_text
from chestai.results.film_result import Verdict
from chestai.triage.rule import Bucket

PRIVATE = "99CHESTAI"


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE, meaning)


FINDINGS: dict[str, Code] = {
    "Effusion": Code("60046008", "SCT", "Pleural effusion"),
    "Infiltration": Code("112121", "DCM", "Infiltrate"),
    "Mass": Code("4147007", "SCT", "Mass"),
    "Nodule": Code("27925004", "SCT", "Nodule"),
    "Pneumothorax": Code("36118008", "SCT", "Pneumothorax"),
    "Edema": Code("19242006", "SCT", "Pulmonary edema"),
    "Fibrosis": Code("112674009", "SCT", "Fibrosis"),
    "Lung_Opacity": Code("112001", "DCM", "Opacity"),
    "Atelectasis": _private("ATELECTASIS", "Atelectasis"),
    "Cardiomegaly": _private("CARDIOMEGALY", "Cardiomegaly"),
    "Pneumonia": _private("PNEUMONIA", "Pneumonia"),
    "Consolidation": _private("CONSOLIDATION", "Consolidation"),
    "Emphysema": _private("EMPHYSEMA", "Emphysema"),
    "Pleural_Thickening": _private("PLEURAL_THICK", "Pleural thickening"),
    "Hernia": _private("HERNIA", "Hernia"),
    "Enlarged_Cardiomediastinum": _private("ENL_CARDIOMED", "Enlarged cardiomediastinum"),
    "Lung_Lesion": _private("LUNG_LESION", "Lung lesion"),
    "Pleural_Other": _private("PLEURAL_OTHER", "Other pleural abnormality"),
    "Fracture": _private("FRACTURE", "Fracture"),
    "Support_Devices": _private("SUPPORT_DEVICES", "Support devices"),
    "Tuberculosis": _private("TUBERCULOSIS", "Tuberculosis"),
    "COVID-19": _private("COVID-19", "COVID-19"),
}

# Standard concepts (PS3.16) of the measurements, evaluations and segments
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")  # in percent, 0 to 100
PERCENT = Code("%", "UCUM", "Percent")
YES = Code("373066001", "SCT", "Yes")
NO = Code("373067005", "SCT", "No")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500, row 12; in no context group
IMPRESSION = Code("121073", "DCM", "Impression")
DEVICE = Code("121007", "DCM", "Device")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")  # of CID 100
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # of CID 7150
PHYSICAL_OBJECT = Code("260787004", "SCT", "Physical object")  # of CID 7150
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # of CID 7162
STANDARD: tuple[Code, ...] = (
    *(code for code in FINDINGS.values() if code.scheme_designator != PRIVATE),
    *(CERTAINTY, PERCENT, YES, NO, COMMENT, IMPRESSION, DEVICE, IMAGING_PROCEDURE),
    *(ABNORMAL_STRUCTURE, PHYSICAL_OBJECT, ARTIFICIAL_INTELLIGENCE),
)

OPERATING_POINT = _private("OPERATING_POINT", "Certainty from which the finding is positive")
POSITIVE = _private("POSITIVE", "Certainty reaches the operating point")
TRIAGE_BUCKET = _private("TRIAGE_BUCKET", "How soon the study should be read")
TRIAGE_SCORE = _private("TRIAGE_SCORE", "Triage score")
VERDICT = _private("VERDICT", "Verdict of a reviewer")
BUCKETS: dict[Bucket, Code] = {
    "urgent": _private("URGENT", "Urgent"),
    "soon": _private("SOON", "Soon"),
    "routine": _private("ROUTINE", "Routine"),
}
VERDICTS: dict[Verdict, Code] = {
    "TP": _private("TP", "True positive"),
    "FP": _private("FP", "False positive"),
    "TN": _private("TN", "True negative"),
    "FN": _private("FN", "False negative"),
    "unsure": _private("UNSURE", "Unsure"),
}


def finding_code(finding: str) -> Code:
    """The code of a finding. One that is not among the known findings has a private code of its own, from its name."""
    if finding in FINDINGS:
        return FINDINGS[finding]
    digest = hashlib.sha256(finding.encode()).hexdigest()
    return _private(f"X{digest[:15].upper()}", label(finding) or "Finding without a name")


def label(finding: str) -> str:
    """A finding's name as readers see it, at most 64 characters."""
    return clean_text(finding.replace("_", " "), 64)


def coding_scheme() -> CodingSchemeIdentificationItem:
    """The declaration of the private scheme."""
    return CodingSchemeIdentificationItem(PRIVATE, name="ChestAI's own codes", responsible_organization="ChestAI")
