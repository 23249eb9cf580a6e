"""Acknowledgements: what a receiver answers to a message (HL7 v2.5.1, Section 2.9.2, original mode)."""

from dataclasses import dataclass
from typing import Literal, get_args

from chestai.results.hl7.encoding import FIELD, unescape

Verdict = Literal["AA", "AE", "AR"]  # accepted; error, try again; rejected


@dataclass(frozen=True)
class Acknowledgement:
    """text: of MSA-3 and the ERR segments, for a person; empty if there is none."""

    verdict: Verdict
    text: str


def read_control_id(message: str) -> str:
    """The control ID of a message, MSH-10.

    Raises:
        ValueError: It is no HL7 message.
    """
    fields = _split(message)[0]
    if fields[0] != "MSH" or len(fields) < 10 or not fields[9]:
        raise ValueError("not an HL7 message: it has no MSH segment with a control ID")
    return fields[9]


def parse_acknowledgement(answer: str, control_id: str) -> Acknowledgement:
    """
    Args:
        control_id: MSH-10 of the message that was sent.

    Raises:
        ValueError: The answer is no acknowledgement, or that of another message. The text quotes nothing of it.
    """
    segments = _split(answer)
    msa = next((fields for fields in segments if fields[0] == "MSA"), None)
    if segments[0][0] != "MSH" or msa is None or len(msa) < 3:
        raise ValueError("the answer is no HL7 acknowledgement")
    verdict = next((one for one in get_args(Verdict) if one == msa[1]), None)
    if verdict is None:
        raise ValueError("the acknowledgement says neither AA, AE nor AR")
    if unescape(msa[2]) != control_id:
        raise ValueError("the acknowledgement is of another message")
    texts = [msa[3] if len(msa) > 3 else "", *(_read_error(fields) for fields in segments if fields[0] == "ERR")]
    return Acknowledgement(verdict, "; ".join(text for text in map(unescape, texts) if text))


def _read_error(fields: list[str]) -> str:
    """The text of an ERR segment: the user message (ERR-8), else the diagnosis (ERR-7), else the error code's text."""
    values = [*fields, *[""] * 9]
    components = [*values[3].split("^"), "", ""]
    return values[8] or values[7] or components[1] or components[0]


def _split(message: str) -> list[list[str]]:
    """Segments as fields; a receiver's line feeds count as carriage returns."""
    lines = message.replace("\n", "\r").split("\r")
    return [line.split(FIELD) for line in lines if line.strip()] or [[""]]
