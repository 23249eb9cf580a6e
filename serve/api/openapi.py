"""What the OpenAPI document says about errors and media types.

An `_ERRORS` constant maps error codes to when they are returned; a `_RESPONSES` constant goes into a route's
`responses`. The examples are next to their schemas in `serve.schemas`.
"""

from typing import Annotated, Any

from fastapi import Path, Query

from chestai.monitoring.ood_detector import LATERAL_VIEW, OUT_OF_DISTRIBUTION
from serve.problems import error_responses

ImageId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file.")]

Prefetch = Annotated[
    bool, Query(description="`true`: nobody looks at it yet. The audit then says `prefetch`, and a page says so later.")
]
Refresh = Annotated[
    bool, Query(description="`true`: an open page asks again by itself. This prolongs no session; see the audit.")
]

NOT_SCORED_ERRORS = {
    "empty_file": "the file has 0 bytes",
    "not_an_image": "no PNG, JPEG or DICOM file",
    "unsupported_format": "a colour mode, bit depth or DICOM transfer syntax that is not supported",
    "truncated": "the file is cut or damaged",
    "too_large": "too many pixels, or a decompression bomb: more data inside than an image can have",
    "too_small": "too few pixels",
    "undecodable": "the pixels cannot be decoded, or other data follows them",
    "multi_frame": "more than one picture",
    "not_a_radiograph": "by its DICOM header",
    "not_a_chest": "by its DICOM header",
    "not_frontal": "by its DICOM header",
    "colour": "a DICOM file in colour",
    OUT_OF_DISTRIBUTION: "unlike the chest radiographs that the model was trained on",
    LATERAL_VIEW: "a lateral view",
}
FORBIDDEN_ERRORS = {
    "forbidden": "the role or the scopes do not allow it",
    "cross_origin": "a page of another origin sent it, and no key or token came with it",
}
UPLOAD_SIZE_ERRORS = {"upload_too_large": "more bytes than serve.max_upload_mb"}
FORM_ERRORS = {
    "missing_file": "the form has no file in its field",
    "unsafe_file_name": "a path, invisible characters or more than 255 characters",
}
PARAMETER_ERRORS = {"invalid_request": "a parameter is missing or wrong, or the JSON names no URI"}
FINDING_ERRORS = {"unknown_finding": "the model has no such finding", **PARAMETER_ERRORS}
STATE_ERRORS = {
    "state_unavailable": "the database does not respond; `Retry-After` says when to try again",
    "state_full": "the database is down, and nothing more can be recorded for it",
}
MONITOR_ERRORS = {"watch_unavailable": "the monitor is being restarted"}

SLOW_RESPONSES = error_responses(408, upload_too_slow="the body did not arrive in time")
UPLOAD_RESPONSES = {
    **error_responses(
        400,
        invalid_request="the form cannot be read, or has too many fields",
        incomplete_upload="the connection ended before the upload did",
    ),
    **SLOW_RESPONSES,
}
JSON_BODY_RESPONSES = {
    **SLOW_RESPONSES,
    **error_responses(400, invalid_request="the body is not JSON in UTF-8"),
    **error_responses(413, upload_too_large="the body has more than 256 KiB"),
}
OVERLOADED_RESPONSES = error_responses(
    503,
    overloaded="no model responds in time; `Retry-After` says when to try again",
    state_unavailable="the database cannot authenticate the caller",
    state_full="the database is down, and no more predictions can be recorded for it",
)
STATE_RESPONSES = error_responses(503, **STATE_ERRORS)

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
PNG: dict[str, Any] = {"image/png": BINARY}
