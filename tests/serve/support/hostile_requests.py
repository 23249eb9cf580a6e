"""Requests that are wrong around the file: forms, names, lengths, types and parameters."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.serve.support.hostile import PHOTO, SCORED, WHOLE
from tests.serve.support.local import form

Headers = dict[str, str]
LIMIT = 2**21  # bytes that the tests' service takes


class Request(NamedTuple):
    """What a client sends. expected: the code of its refusal, or `SCORED`. leaves: it goes before the end."""

    make: Callable[[], tuple[bytes | Sequence[bytes], Headers]]
    expected: str
    target: str = "/infer"
    leaves: bool = False


def _form(*parts: tuple[str, str | None, str, bytes], **changes: str) -> Callable[[], tuple[bytes, Headers]]:
    return lambda: form(*parts, **changes)


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
    "an empty form": Request(_form(), "missing_file"),
    "another field": Request(_form(("picture", "a.png", "image/png", WHOLE)), "missing_file"),
    "a file as text": Request(_form(("file", None, "text/plain", b"text")), "missing_file"),
    "two files": Request(_form(FILE, FILE), "too_many_files"),
    "too many files": Request(_form(*[FILES] * 33), "too_many_files", "/batch_predict"),
    "far too many files": Request(_form(*[("files", "a", "b", b"")] * 5000), "too_many_files", "/batch_predict"),
    "no form of several": Request(_raw(WHOLE), "missing_file", "/batch_predict"),
    "an empty form of several": Request(_form(FIELD), "missing_file", "/batch_predict"),
    "10,000 fields": Request(_form(*[FIELD] * 10_000, FILE), "invalid_request"),
    "a field of a megabyte": Request(_form(("note", None, "text/plain", b"x" * (LIMIT + 1))), "upload_too_large"),
    "a field's name of a megabyte": Request(_form(("n" * 900_000, None, "text/plain", b"x")), "invalid_request"),
    "500 headers in a part": Request(
        lambda: (form(FILE)[0].replace(b"Content-Type", LINES + b"Content-Type", 1), form(FILE)[1]), "invalid_request"
    ),
    "another boundary": Request(_typed("multipart/form-data; boundary=other"), "invalid_request"),
    "no boundary": Request(_typed("multipart/form-data"), "invalid_request"),
    "an empty boundary": Request(_typed('multipart/form-data; boundary=""'), "invalid_request"),
    "a boundary of 10,000": Request(_typed(f"multipart/form-data; boundary={'e' * 10_000}"), "invalid_request"),
    "a form that is a file": Request(lambda: (WHOLE, form()[1]), "invalid_request"),
    "a form cut in its head": Request(_cut(40), "missing_file"),
    "a form without its end": Request(_cut(1000), "missing_file"),
    "a form's type in capitals": Request(_typed("Multipart/Form-Data; boundary=edge"), SCORED),
    "another multipart": Request(_typed("multipart/mixed; boundary=edge"), "unsupported_media_type"),
}

NAMES = {
    "a path upwards": Request(_named("../../etc/passwd"), "unsafe_file_name"),
    "a path of Windows": Request(_named("..\\..\\boot.ini"), "unsafe_file_name"),
    "an absolute path": Request(_named("/etc/passwd"), "unsafe_file_name"),
    "a drive, which the parser takes off": Request(_named("C:\\chest.png"), SCORED),
    "a bell": Request(_named("chest\7.png"), "unsafe_file_name"),
    "an escape": Request(_named("\x1b[2Jchest.png"), "unsafe_file_name"),
    "a null": Request(_named("chest.png\0.exe"), "unsafe_file_name"),
    "a long name": Request(_named("a" * 300 + ".png"), "unsafe_file_name"),
    "a name of a megabyte": Request(_named("a" * 1_000_000), "invalid_request"),
    "half a character": Request(_charset("utf-7", "+2AA-.png"), "unsafe_file_name"),
    "half a character by escape": Request(_charset("unicode_escape", "\\\\ud800.png"), "unsafe_file_name"),
    "a charset for host names": Request(_charset("idna", "xn--" + "a" * 80), "invalid_request"),
    "a charset that is none": Request(_charset("klingon", "a.png"), SCORED),
    "a charset that packs": Request(_charset("zlib", "a.png"), SCORED),
    "markup": Request(_named("<img src=x onerror=alert(1)>.png"), SCORED),
    "other scripts": Request(_named("Röntgen Thorax 胸部.png"), SCORED),
    "no name": Request(_named(""), SCORED),
    "one bad name of several": Request(
        _form(FILES, ("files", "../a.png", "image/png", WHOLE)), "unsafe_file_name", "/batch_predict"
    ),
}

BODIES = {
    "too large in pieces": Request(_raw(*[b"x" * 2**16] * 33), "upload_too_large"),
    "too large and it says so": Request(_raw(b"x" * LIMIT, b"x", content_length=str(LIMIT + 1)), "upload_too_large"),
    "too large and it lies": Request(_raw(*[b"x" * 2**16] * 33, content_length="10"), "upload_too_large"),
    "says it is too large": Request(_raw(WHOLE, content_length=str(10**12)), "upload_too_large"),
    "a length of 5,000 digits": Request(_raw(WHOLE, content_length="9" * 5000), "upload_too_large"),
    "a length of zeros": Request(_raw(WHOLE, content_length="0" * 5000), SCORED),
    "a length in superscript": Request(_raw(WHOLE, content_length="1²"), SCORED),
    "a negative length": Request(_raw(WHOLE, content_length="-1"), SCORED),
    "a form that is too large": Request(
        lambda: (form(("file", "a.png", "image/png", bytes(LIMIT)))[0], form()[1]), "upload_too_large"
    ),
    "several that are too large": Request(
        _form(*[("files", "a.png", "image/png", bytes(LIMIT // 16))] * 17), "upload_too_large", "/batch_predict"
    ),
    "a client that leaves": Request(_raw(WHOLE[:500]), "incomplete_upload", leaves=True),
    "a client that leaves a form": Request(_cut(500), "incomplete_upload", leaves=True),
    "a byte at a time": Request(_raw(*[bytes([one]) for one in WHOLE[:3000]]), "truncated"),
    "called text": Request(_raw(WHOLE, content_type="text/html"), "unsupported_media_type"),
    "called json": Request(_raw(WHOLE, content_type="application/json"), "upload_too_large"),
    "a part of it called json": Request(_raw(WHOLE[:3000], content_type="application/json"), "invalid_request"),
    "called a web form": Request(
        _raw(WHOLE, content_type="application/x-www-form-urlencoded"), "unsupported_media_type"
    ),
    "a jpeg called png": Request(_raw(PHOTO, content_type="image/png"), SCORED),
    "a strange type": Request(_raw(WHOLE, content_type=";;;=\t,"), SCORED),
    "said to be packed": Request(_raw(WHOLE, content_encoding="gzip"), SCORED),
}

QUERIES = {
    "an unknown finding": Request(_raw(WHOLE), "unknown_finding", "/infer?explain=Sadness"),
    "a finding of 60,000 letters": Request(_raw(WHOLE), "unknown_finding", f"/infer?explain={'M' * 60_000}"),
    "a finding that is a path": Request(_raw(WHOLE), "unknown_finding", "/infer?explain=../../etc/passwd%00"),
    "a finding 5,000 times": Request(_raw(WHOLE), SCORED, "/infer?" + "explain=Mass&" * 5000),
    "bytes that are no text": Request(_raw(WHOLE), "unknown_finding", "/infer?explain=%ff%fe"),
    "no overlay as a picture": Request(_raw(WHOLE, accept="image/png"), "not_one_overlay"),
}

REQUESTS = {**FORMS, **NAMES, **BODIES, **QUERIES}
