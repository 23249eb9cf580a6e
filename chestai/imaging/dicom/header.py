"""What a DICOM file's header says, without a DICOM library: every process may import this."""

from dataclasses import dataclass

from chestai.imaging.errors import Unreadable

# Preambles of polyglot files. A preamble may be anything, and programs hide there; TIFF is its one proper use (PS3.10
# Section 7.1).
POLYGLOT = (b"\x89PNG", b"\xff\xd8\xff", b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!", b"<", b"%PDF", b"PK\3\4")


@dataclass(frozen=True)
class Facts:
    """The facts of a header, as in `gold/images`.

    image_id, patient_id, study_id: SOP Instance UID, Patient ID, Study Instance UID. age_years: None if not known or
    impossible. sex: M, F or None. view: PA, AP, or None if the header does not say. height, width: pixels.
    """

    image_id: str
    patient_id: str
    study_id: str | None
    age_years: float | None
    sex: str | None
    view: str | None
    height: int
    width: int


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: the prefix after the preamble (PS3.10 Section 7.1)."""
    return data[128:132] == b"DICM"


def check_preamble(data: bytes) -> None:
    """Raises `Unreadable` for a DICOM file that is a file of another format too."""
    if data.startswith(POLYGLOT):
        raise Unreadable("not_an_image", "the DICOM preamble is the head of another format's file")
