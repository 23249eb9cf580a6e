"""Acknowledgements of receivers, good and bad."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.results.hl7.acknowledgement import Acknowledgement, parse_acknowledgement, read_control_id
from chestai.results.hl7.message import build_message
from tests.chestai.results.samples import RESULT

HEAD = r"MSH|^~\&|RIS||CHESTAI||20260301||ACK^R01^ACK|1|P|2.5.1"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"{HEAD}\rMSA|AA|42\r", Acknowledgement("AA", "")),
        (f"{HEAD}\r\nMSA|AA|42|ok|\r\n", Acknowledgement("AA", "ok")),
        (f"{HEAD}\rMSA|AE|42|busy\\F\\full\r", Acknowledgement("AE", "busy|full")),
        (
            f"{HEAD}\rMSA|AR|42\rERR||PID^1^3|204^Unknown key^HL70357|E||||no such order\r",
            Acknowledgement("AR", "no such order"),
        ),
        (f"{HEAD}\rMSA|AR|42|no\rERR|||204^Unknown key^HL70357|E\r", Acknowledgement("AR", "no; Unknown key")),
        (f"{HEAD}\rMSA|AR|42\rERR\r", Acknowledgement("AR", "")),
    ],
)
def test_answers_are_read(answer: str, expected: Acknowledgement) -> None:
    assert parse_acknowledgement(answer, "42") == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no HL7 acknowledgement"),
        ("HTTP/1.1 400 Bad Request\r\n", "no HL7 acknowledgement"),
        (f"{HEAD}\r", "no HL7 acknowledgement"),
        (f"{HEAD}\rMSA|AA\r", "no HL7 acknowledgement"),
        ("MSA|AA|42\r", "no HL7 acknowledgement"),
        (f"{HEAD}\rMSA|OK|42\r", "neither AA, AE nor AR"),
        (f"{HEAD}\rMSA|AA|43\r", "another message"),
    ],
)
def test_what_is_no_answer_is_refused(answer: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_acknowledgement(answer, "42")


@given(st.text() | st.text("MSHMSAERR|^~\\&\r\n42AE").map(lambda text: f"{HEAD}\rMSA|AE|42|{text}"))
def test_any_answer_is_read_or_refused(answer: str) -> None:
    try:
        parse_acknowledgement(answer, "42")
    except ValueError as error:
        assert "\n" not in str(error)


def test_the_control_id_of_a_message_is_found() -> None:
    assert len(read_control_id(build_message(RESULT))) == 20
    for text in ("", "MSH|", "PID|1"):
        with pytest.raises(ValueError, match="control ID"):
            read_control_id(text)
