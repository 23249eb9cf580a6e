"""Hostile requests around valid files: forms, file names, lengths, types and parameters."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.serve.support.hostile import PHOTO, SCORED, WHOLE
from tests.serve.support.local import encode_form

Headers = dict[str, str]
LIMIT = 2**21  # maximum bytes of an upload in these tests


class HostileRequest(NamedTuple):
    """A request. expected: the error code of the response, or `SCORED`. leaves: the client disconnects early."""

    make: Callable[[], tuple[bytes | Sequence[bytes], Headers]]
    expected: str
    target: str = "/infer"
    leaves: bool = False


def _form(*parts: tuple[str, str | None, str, bytes], **changes: str) -> Callable[[], tuple[bytes, Headers]]:
    return lambda: encode_form(*parts, **changes)


def _raw(*pieces: bytes, **headers: str) -> Callable[[], tuple[Sequence[bytes], Headers]]:
    return lambda: (pieces, {name.replace("_", "-"): value for name, value in headers.items()})


def _named(name: str) -> Callable[[], tuple[bytes, Headers]]:
    return _form(("file", name, "image/png", WHOLE))


def _charset(name: str, file_name: str) -> Callable[[], tuple[bytes, Headers]]:
    def make() -> tuple[bytes, Headers]:
        body, headers = _named(file_name)()
        return body, {"content-type": f"{headers['content-type']}; charset={name}"}

    return make


def _typed(kind: str) -> Callable[[], tuple[bytes, Headers]]:
    return lambda: (_named("a.png")()[0], {"content-type": kind})


def _cut(length: int) -> Callable[[], tuple[bytes, Headers]]:
    def make() -> tuple[bytes, Headers]:
        body, headers = _named("a.png")()
        return body[:length], headers

    return make


FILE = ("file", "a.png", "image/png", WHOLE)
FILES = ("files", "a.png", "image/png", WHOLE)
FIELD = ("note", None, "text/plain", b"x")
LINES = b"".join(b"X-Header-%d: 1\r\n" % number for number in range(500))

FORMS = {
    "an empty form": HostileRequest(_form(), "missing_file"),
    "another field": HostileRequest(_form(("picture", "a.png", "image/png", WHOLE)), "missing_file"),
    "a file as text": HostileRequest(_form(("file", None, "text/plain", b"text")), "missing_file"),
    "two files": HostileRequest(_form(FILE, FILE), "too_many_files"),
    "too many files": HostileRequest(_form(*[FILES] * 33), "too_many_files", "/batch_predict"),
    "far too many files": HostileRequest(_form(*[("files", "a", "b", b"")] * 5000), "too_many_files", "/batch_predict"),
    "no form of several": HostileRequest(_raw(WHOLE), "missing_file", "/batch_predict"),
    "an empty form of several": HostileRequest(_form(FIELD), "missing_file", "/batch_predict"),
    "10,000 fields": HostileRequest(_form(*[FIELD] * 10_000, FILE), "invalid_request"),
    "a field of a megabyte": HostileRequest(
        _form(("note", None, "text/plain", b"x" * (LIMIT + 1))), "upload_too_large"
    ),
    "a field's name of a megabyte": HostileRequest(_form(("n" * 900_000, None, "text/plain", b"x")), "invalid_request"),
    "500 headers in a part": HostileRequest(
        lambda: (encode_form(FILE)[0].replace(b"Content-Type", LINES + b"Content-Type", 1), encode_form(FILE)[1]),
        "invalid_request",
    ),
    "another boundary": HostileRequest(_typed("multipart/form-data; boundary=other"), "invalid_request"),
    "no boundary": HostileRequest(_typed("multipart/form-data"), "invalid_request"),
    "an empty boundary": HostileRequest(_typed('multipart/form-data; boundary=""'), "invalid_request"),
    "a boundary of 10,000": HostileRequest(_typed(f"multipart/form-data; boundary={'e' * 10_000}"), "invalid_request"),
    "a form that is a file": HostileRequest(lambda: (WHOLE, encode_form()[1]), "invalid_request"),
    "a form cut in its head": HostileRequest(_cut(40), "missing_file"),
    "a form without its end": HostileRequest(_cut(1000), "missing_file"),
    "a form's type in capitals": HostileRequest(_typed("Multipart/Form-Data; boundary=edge"), SCORED),
    "another multipart": HostileRequest(_typed("multipart/mixed; boundary=edge"), "unsupported_media_type"),
}

NAMES = {
    "a path upwards": HostileRequest(_named("../../etc/passwd"), "unsafe_file_name"),
    "a path of Windows": HostileRequest(_named("..\\..\\boot.ini"), "unsafe_file_name"),
    "an absolute path": HostileRequest(_named("/etc/passwd"), "unsafe_file_name"),
    "a drive, which the parser takes off": HostileRequest(_named("C:\\chest.png"), SCORED),
    "a bell": HostileRequest(_named("chest\7.png"), "unsafe_file_name"),
    "an escape": HostileRequest(_named("\x1b[2Jchest.png"), "unsafe_file_name"),
    "a null": HostileRequest(_named("chest.png\0.exe"), "unsafe_file_name"),
    "a long name": HostileRequest(_named("a" * 300 + ".png"), "unsafe_file_name"),
    "a name of a megabyte": HostileRequest(_named("a" * 1_000_000), "invalid_request"),
    "half a character": HostileRequest(_charset("utf-7", "+2AA-.png"), "unsafe_file_name"),
    "half a character by escape": HostileRequest(_charset("unicode_escape", "\\\\ud800.png"), "unsafe_file_name"),
    "a charset for host names": HostileRequest(_charset("idna", "xn--" + "a" * 80), "invalid_request"),
    "a charset that is none": HostileRequest(_charset("klingon", "a.png"), SCORED),
    "a charset that packs": HostileRequest(_charset("zlib", "a.png"), SCORED),
    "markup": HostileRequest(_named("<img src=x onerror=alert(1)>.png"), SCORED),
    "other scripts": HostileRequest(_named("Röntgen Thorax 胸部.png"), SCORED),
    "no name": HostileRequest(_named(""), SCORED),
    "one bad name of several": HostileRequest(
        _form(FILES, ("files", "../a.png", "image/png", WHOLE)), "unsafe_file_name", "/batch_predict"
    ),
}

BODIES = {
    "too large in pieces": HostileRequest(_raw(*[b"x" * 2**16] * 33), "upload_too_large"),
    "too large and it says so": HostileRequest(
        _raw(b"x" * LIMIT, b"x", content_length=str(LIMIT + 1)), "upload_too_large"
    ),
    "too large and it lies": HostileRequest(_raw(*[b"x" * 2**16] * 33, content_length="10"), "upload_too_large"),
    "says it is too large": HostileRequest(_raw(WHOLE, content_length=str(10**12)), "upload_too_large"),
    "a length of 5,000 digits": HostileRequest(_raw(WHOLE, content_length="9" * 5000), "upload_too_large"),
    "a length of zeros": HostileRequest(_raw(WHOLE, content_length="0" * 5000), SCORED),
    "a length in superscript": HostileRequest(_raw(WHOLE, content_length="1²"), SCORED),
    "a negative length": HostileRequest(_raw(WHOLE, content_length="-1"), SCORED),
    "a form that is too large": HostileRequest(
        lambda: (encode_form(("file", "a.png", "image/png", bytes(LIMIT)))[0], encode_form()[1]), "upload_too_large"
    ),
    "several that are too large": HostileRequest(
        _form(*[("files", "a.png", "image/png", bytes(LIMIT // 16))] * 17), "upload_too_large", "/batch_predict"
    ),
    "a client that leaves": HostileRequest(_raw(WHOLE[:500]), "incomplete_upload", leaves=True),
    "a client that leaves a form": HostileRequest(_cut(500), "incomplete_upload", leaves=True),
    "a byte at a time": HostileRequest(_raw(*[bytes([one]) for one in WHOLE[:3000]]), "truncated"),
    "called text": HostileRequest(_raw(WHOLE, content_type="text/html"), "unsupported_media_type"),
    "called json": HostileRequest(_raw(WHOLE, content_type="application/json"), "upload_too_large"),
    "a part of it called json": HostileRequest(_raw(WHOLE[:3000], content_type="application/json"), "invalid_request"),
    "called a web form": HostileRequest(
        _raw(WHOLE, content_type="application/x-www-form-urlencoded"), "unsupported_media_type"
    ),
    "a jpeg called png": HostileRequest(_raw(PHOTO, content_type="image/png"), SCORED),
    "a strange type": HostileRequest(_raw(WHOLE, content_type=";;;=\t,"), SCORED),
    "said to be packed": HostileRequest(_raw(WHOLE, content_encoding="gzip"), SCORED),
}

QUERIES = {
    "an unknown finding": HostileRequest(_raw(WHOLE), "unknown_finding", "/infer?explain=Sadness"),
    "a finding of 60,000 letters": HostileRequest(_raw(WHOLE), "unknown_finding", f"/infer?explain={'M' * 60_000}"),
    "a finding that is a path": HostileRequest(_raw(WHOLE), "unknown_finding", "/infer?explain=../../etc/passwd%00"),
    "a finding 5,000 times": HostileRequest(_raw(WHOLE), SCORED, "/infer?" + "explain=Mass&" * 5000),
    "bytes that are no text": HostileRequest(_raw(WHOLE), "unknown_finding", "/infer?explain=%ff%fe"),
    "no overlay as a picture": HostileRequest(_raw(WHOLE, accept="image/png"), "not_one_overlay"),
}

REQUESTS = {**FORMS, **NAMES, **BODIES, **QUERIES}
