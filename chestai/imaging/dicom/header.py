"""What a DICOM file's header says, without a DICOM library: every process may import this."""

from dataclasses import dataclass

from chestai.imaging.errors import Unreadable

# Preambles of polyglot files. A preamble may be anything, and programs hide there; TIFF is its one proper use (PS3.10
# Section 7.1).
POLYGLOT = (b"\x89PNG", b"\xff\xd8\xff", b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!", b"<", b"%PDF", b"PK\3\4")

PREFIX = b"DICM"
VRS = (
    *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"OB", b"OW"),
    *(b"PN", b"SH", b"SL", b"SQ", b"SS", b"ST", b"TM", b"UI", b"UL", b"UN", b"US", b"UT"),
)
MAX_FIRST = 1024  # bytes of a file's first value, such as a character set


@dataclass(frozen=True)
class Facts:
    """The facts of a header, as in `gold/images`.

    image_id, patient_id, study_id: SOP Instance UID, Patient ID, Study Instance UID; None where an anonymised file has
    none. age_years: None if not known or impossible. sex: M, F or None. view: PA, AP, or None if the header does not
    say. height, width: pixels. studied_on: the date of the study or else of the film, YYYY-MM-DD; None if not known or
    impossible.
    """

    image_id: str | None
    patient_id: str | None
    study_id: str | None
    age_years: float | None
    sex: str | None
    view: str | None
    height: int
    width: int
    studied_on: str | None = None


@dataclass(frozen=True)
class Identity:
    """Which object a file is: the UIDs of its SOP class, SOP instance, study and transfer syntax."""

    sop_class: str
    sop_instance: str
    study: str
    syntax: str


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: a prefix after its preamble (PS3.10 Section 7.1), or a data set without both."""
    return find_elements(data) is not None


def find_elements(data: bytes) -> int | None:
    """Where the elements of a DICOM file begin; None in other files."""
    if data[128:132] == PREFIX:
        return 132
    if data[:4] == PREFIX:
        return 4
    return 0 if data[:2] in (b"\2\0", b"\10\0") and data[3:4] == b"\0" and _begins_with_element(data) else None


def _begins_with_element(data: bytes) -> bool:
    """Whether a tag is followed by a VR or, without VRs, by the length of a short value."""
    return has_vr(data) or 0 < int.from_bytes(data[4:8], "little") <= MAX_FIRST


def has_vr(element: bytes) -> bool:
    """Whether an element has a VR behind its tag (PS3.5 7.1.2), as in explicit transfer syntaxes."""
    return element[4:6] in VRS


def check_preamble(data: bytes) -> None:
    """Raises `Unreadable` for a DICOM file that is a file of another format too."""
    if data.startswith(POLYGLOT):
        raise Unreadable("not_an_image", "the DICOM preamble is the head of another format's file")
