"""Films and results for the tests of what goes out."""

from dataclasses import fields, replace
from datetime import UTC, date, datetime

from hypothesis import strategies as st

from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult, ResultBand, ReviewedFinding, Verdict
from chestai.results.text import clean

AT = datetime(2026, 3, 1, 8, 30, 15, tzinfo=UTC)
FILM = Film(
    sop_class="1.2.840.10008.5.1.4.1.1.1.1",
    sop_instance="1.2.826.0.1.3680043.8.498.1.1",
    series="1.2.826.0.1.3680043.8.498.1",
    study="1.2.826.0.1.3680043.8.498",
    patient_id="PAT-4711",
    issuer="CLINIC",
    patient_name="Doe^Jane^Mary^Dr^PhD",
    birth_date=date(1960, 5, 4),
    sex="F",
    accession="ACC-99",
    studied_at=datetime(2026, 3, 1, 7, 15),
    study_id="12",
    description="Thorax p.a.",
    referrer="House^Gregory",
    modality="DX",
)
FINDINGS = (
    FindingResult("Cardiomegaly", 0.83, 0.4, ResultBand(0.78, 0.91, 137)),
    FindingResult("Pleural_Thickening", 0.05, 0.3),
    FindingResult("Hernia", 0.001, None),
)
RESULT = FilmResult(FILM, FINDINGS, "urgent", 0.83, "densenet", 3, AT)
SECOND = replace(RESULT, film=replace(FILM, sop_instance=f"{FILM.series}.2"), bucket="routine", score=0.1)

HEADER_TEXTS = st.text(max_size=80) | st.text("|^~\\&=.\r\n\x0b\x1c\x00 ÄA1", max_size=80)
FILMS = st.builds(
    Film,
    **{one.name: HEADER_TEXTS for one in fields(Film) if one.type is str},
    birth_date=st.none() | st.dates(),
    studied_at=st.none() | st.datetimes(),
).filter(lambda film: bool(clean(film.sop_instance)))
"""Films of any header."""

HOSTILE_FILMS = {
    "bare": Film(sop_class="", sop_instance="1.2.3", series="", study=""),
    "controls": replace(
        FILM, patient_name="D\x0boe^\x1cJ\ran\ne^\x00", accession="A\x1c\r1", description="a\x0bb\r\nc", issuer="\x01"
    ),
    "separators": replace(FILM, patient_name="D|e&f^~x\\y", patient_id="|^~\\&", accession="a|b,c$d", issuer="^&"),
    "unicode": replace(FILM, patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", description="Thorax, Übersicht 🫁"),
    "surrogates": replace(FILM, patient_name="M\udcfcller^J", description="\ud800"),
    "long": replace(FILM, patient_name="X" * 5000, description="Y" * 50_000, accession="Z" * 150, referrer="^" * 900),
    "bad uids": replace(FILM, study="not a uid", series="1..2", sop_instance="1.02.3/x", sop_class="?"),
    "odd": replace(
        FILM, sex="X", modality="d x", studied_at=None, birth_date=None, patient_name="^^^^", issuer="1.2.3"
    ),
    "spaces": replace(FILM, patient_id="  ", patient_name=" ^ ", description=" \n ", referrer="\x00"),
}


def review(finding: str, verdict: Verdict, reviewer: str = "Dr. Who") -> ReviewedFinding:
    """A verdict an hour after the scoring."""
    return ReviewedFinding(finding, verdict, reviewer, AT.replace(hour=9))
