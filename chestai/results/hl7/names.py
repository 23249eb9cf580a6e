"""Person names of DICOM as those of HL7, which have suffix and prefix the other way round."""

from chestai.results.hl7.encoding import REPETITION, join_components
from chestai.results.person_name import PersonName, Representation, parse_names

LEGAL, UNSPECIFIED = "L", "U"  # HL7 Table 0200
REPRESENTATIONS: dict[Representation, str] = {"alphabetic": "A", "ideographic": "I", "phonetic": "P"}  # Table 0465


def write_xpn(name: str) -> str:
    """A DICOM person name as extended person names (XPN), one for each script; of type U if there is none."""
    names = [join_components(*_parts(one), "", LEGAL, REPRESENTATIONS[one.representation]) for one in parse_names(name)]
    return REPETITION.join(names) or join_components("", "", "", "", "", "", UNSPECIFIED)


def write_xcn(name: str) -> str:
    """A DICOM person name as an identified person without an ID (XCN); empty if there is none."""
    names = parse_names(name)
    return join_components("", *_parts(names[0])) if names else ""


def _parts(name: PersonName) -> tuple[str, ...]:
    return name.family, name.given, name.middle, name.suffix, name.prefix
