"""The codes that FHIR requires in the fields that we fill, and where our references may point.

The models of fhir.resources accept any code. Sources: the `required` bindings of R4 (hl7.org/fhir/R4) and R5.
"""

from collections.abc import Mapping

from chestai.results.fhir.vocabulary import HL7, Release

_OBSERVATION_STATUS = frozenset(
    ["registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"]
)
_REPORT_STATUS = _OBSERVATION_STATUS | {"partial", "appended"}
_DEVICE_NAMES = frozenset(["user-friendly-name", "patient-reported-name"])

_BOTH: dict[str, frozenset[str]] = {
    "Bundle.type": frozenset(["transaction", "searchset"]),
    "Bundle.entry.request.method": frozenset({"POST"}),
    "Bundle.entry.search.mode": frozenset(["match", "include", "outcome"]),
    "DiagnosticReport.status": _REPORT_STATUS,
    "Observation.status": _OBSERVATION_STATUS,
    "ImagingStudy.status": frozenset(["registered", "available", "cancelled", "entered-in-error", "unknown"]),
    "Patient.gender": frozenset(["male", "female", "other", "unknown"]),
    "Device.status": frozenset(["active", "inactive", "entered-in-error"]),
    "OperationOutcome.issue.severity": frozenset(["fatal", "error", "warning", "information"]),
    "OperationOutcome.issue.code": frozenset(["invalid", "login", "forbidden", "not-found", "throttled", "transient"]),
    "CapabilityStatement.status": frozenset(["draft", "active", "retired", "unknown"]),
    "CapabilityStatement.kind": frozenset(["instance", "capability", "requirements"]),
    "CapabilityStatement.rest.mode": frozenset(["client", "server"]),
    "CapabilityStatement.rest.resource.interaction.code": frozenset(
        ["read", "vread", "update", "patch", "delete", "history-instance", "history-type", "create", "search-type"]
    ),
    "CapabilityStatement.rest.resource.searchParam.type": frozenset(
        ["number", "date", "string", "token", "reference", "composite", "quantity", "uri", "special"]
    ),
}

VALUE_SETS: Mapping[Release, Mapping[str, frozenset[str]]] = {
    "R4": _BOTH
    | {
        "Device.status": _BOTH["Device.status"] | {"unknown"},
        "Device.deviceName.type": _DEVICE_NAMES
        | frozenset(["udi-label-name", "manufacturer-name", "model-name", "other"]),
        "CapabilityStatement.fhirVersion": frozenset(["4.0.0", "4.0.1"]),
    },
    "R5": _BOTH
    | {
        "DiagnosticReport.status": _REPORT_STATUS | {"modified"},
        "Device.name.type": _DEVICE_NAMES | {"registered-name"},
    },
}

CODED = {"status", "gender", "method", "mode", "kind", "use", "comparator", "fhirVersion"}
"""Fields that always have a required binding: one that is not in `VALUE_SETS` is an error too."""

SYSTEMS: Mapping[str, frozenset[str]] = {
    f"{HL7}/v3-ObservationInterpretation": frozenset(["POS", "NEG", "IND"]),
    f"{HL7}/observation-category": frozenset(["imaging"]),
    f"{HL7}/v2-0074": frozenset({"RAD"}),
    f"{HL7}/v2-0203": frozenset({"ACSN"}),
}
"""HL7's code systems, of which we use these codes alone. The systems of findings are the caller's."""

TARGETS: Mapping[str, str] = {
    "ImagingStudy.subject": "Patient",
    "Observation.subject": "Patient",
    "Observation.device": "Device",
    "Observation.derivedFrom": "ImagingStudy",
    "DiagnosticReport.subject": "Patient",
    "DiagnosticReport.imagingStudy": "ImagingStudy",
    "DiagnosticReport.study": "ImagingStudy",
    "DiagnosticReport.result": "Observation",
}
"""The type of resource that a reference must lead to."""
