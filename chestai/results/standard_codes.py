"""The standard codes of findings, as FHIR and HL7 write them; findings without one have codes of our own there."""

from chestai.results.dicom.codes import FINDINGS, PRIVATE

FHIR_SYSTEMS = {"SCT": "http://snomed.info/sct", "DCM": "http://dicom.nema.org/resources/ontology/DCM"}

_STANDARD = {finding: code for finding, code in FINDINGS.items() if code.scheme_designator != PRIVATE}

FHIR_CODES = {
    finding: (FHIR_SYSTEMS[code.scheme_designator], code.value, code.meaning) for finding, code in _STANDARD.items()
}
"""Finding -> system, code, display."""

HL7_CODES = {finding: (code.value, code.meaning, code.scheme_designator) for finding, code in _STANDARD.items()}
"""Finding -> identifier, text, coding system of HL7 Table 0396."""
