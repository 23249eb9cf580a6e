"""STOW-RS (PS3.18 Section 10.5): takes the parts of a request apart, stores those that are films, and says which."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from chestai.imaging.dicom.header import Identity
from serve.gateway.intake.accepted import FILMS, SYNTAXES
from serve.gateway.intake.folder import Intake

MAX_PARTS = 1000
# Failure reasons (PS3.18 Table 10.5.3-2, PS3.4 Table B.2-1)
WRONG_CLASS, OUT_OF_RESOURCES, OTHER_STUDY, NOT_UNDERSTOOD = 0x0122, 0xA700, 0xA900, 0xC000


@dataclass
class StoreReport:
    """What became of the parts: their class and instance UIDs, and the reason of each that is not stored."""

    stored: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The HTTP status: 200 all stored, 202 some, 409 none."""
        return 200 if not self.failed else 202 if self.stored else 409

    def to_json(self) -> dict[str, Any]:
        """The Store Instances Response Module (PS3.18 Annex I) as DICOM JSON (PS3.18 Annex F)."""
        stored = [_reference(*one) for one in self.stored]
        failed = [{**_reference(*names), "00081197": {"vr": "US", "Value": [reason]}} for *names, reason in self.failed]
        sequences = {"00081199": stored, "00081198": failed}
        return {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}


def _reference(sop_class: str = "", instance: str = "") -> dict[str, Any]:
    named = {"00081150": sop_class, "00081155": instance}
    return {tag: {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"} for tag, uid in named.items()}


def split_parts(content_type: str, body: bytes) -> list[bytes]:
    """The content of each part of a multipart/related body.

    Raises:
        ValueError: It is no such body of DICOM files, it is cut, or it has too many parts.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/related" or options.get(b"type", b"application/dicom").lower() != b"application/dicom":
        raise ValueError('the body is not multipart/related; type="application/dicom"')
    parts: list[bytearray] = []
    ended: list[bool] = []
    callbacks: Any = {
        "on_part_begin": lambda: parts.append(bytearray()),
        "on_part_data": lambda data, start, end: parts[-1].extend(data[start:end]),
        "on_end": lambda: ended.append(True),
    }
    try:
        parser = MultipartParser(options.get(b"boundary", b""), callbacks)
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise ValueError("the parts cannot be told apart by the boundary") from error
    if not parts or not ended:
        raise ValueError("there is no part, or the last one is cut")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"there are more than {MAX_PARTS} parts")
    return [bytes(part) for part in parts]


def refuse(identity: Identity, study: str | None) -> int | None:
    """The failure reason of an object that is no film, or of another study than the request names; None of others."""
    if identity.sop_class not in FILMS or identity.syntax not in SYNTAXES:
        return WRONG_CLASS
    return OTHER_STUDY if study is not None and identity.study != study else None


def store(intake: Intake, films: Sequence[tuple[Identity, bytes]], report: StoreReport) -> list[tuple[str, bool]]:
    """Stores films durably and adds them to the report.

    Returns:
        The SOP Instance UID of each film that is stored, and whether it is new.
    """
    found = []
    for identity, data in films:
        names = (identity.sop_class, identity.sop_instance)
        try:
            found.append((identity.sop_instance, intake.add(identity.sop_instance, data)))
        except OSError:
            report.failed.append((*names, OUT_OF_RESOURCES))
        else:
            report.stored.append(names)
    return found
