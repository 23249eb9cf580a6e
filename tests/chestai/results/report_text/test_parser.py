"""The parser on what radiologists write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestai.results.report_text.catalogue import list_languages
from chestai.results.report_text.parser import parse
from chestai.results.report_text.statements import State

WIDE = "Enlarged_Cardiomediastinum"

ENGLISH: list[tuple[str, dict[str, State]]] = [
    ("No pneumothorax, effusion, or focal mass.", {"Pneumothorax": "absent", "Effusion": "absent", "Mass": "absent"}),
    ("Lungs are free of infiltrates.", {"Infiltration": "absent"}),
    ("Cardiomegaly without edema.", {"Cardiomegaly": "present", "Edema": "absent"}),
    ("No effusion but there is a nodule.", {"Effusion": "absent", "Nodule": "present"}),
    ("The previously seen pneumothorax has resolved.", {"Pneumothorax": "absent"}),
    ("Resolved pneumonia.", {"Pneumonia": "absent"}),
    ("Possible pneumonia.", {"Pneumonia": "uncertain"}),
    ("A small effusion cannot be excluded.", {"Effusion": "uncertain"}),
    ("Atelectasis versus infiltrate.", {"Atelectasis": "uncertain", "Infiltration": "uncertain"}),
    ("Pneumonia is suspected.", {"Pneumonia": "uncertain"}),
    ("Without effusion, pneumonia cannot be excluded.", {"Effusion": "absent", "Pneumonia": "uncertain"}),
    ("The heart is mildly enlarged.", {"Cardiomegaly": "present"}),
    ("The heart is not enlarged.", {"Cardiomegaly": "absent"}),
    ("Heart size is normal and the mediastinum is widened.", {"Cardiomegaly": "absent", WIDE: "present"}),
    ("Heart and mediastinum are normal.", {"Cardiomegaly": "absent", WIDE: "absent"}),
    ("The aorta is enlarged.", {}),
    ("Large pericardial effusion and subcutaneous emphysema.", {}),
    ("No change in the large effusion.", {"Effusion": "present"}),
    ("Hydropneumothorax.", {"Effusion": "present", "Pneumothorax": "present"}),
    ("No fracture. Fracture of a rib.", {"Fracture": "present"}),
    ("Neither effusion nor edema.", {"Effusion": "absent", "Edema": "absent"}),
    ("INDICATION: hernia?\nFINDINGS: No edema\nMass\nIMPRESSION: no\nedema.", {"Edema": "absent", "Mass": "present"}),
    ("Findings: mass. Comparison: nodule. Impression: hernia.", {"Mass": "present", "Hernia": "present"}),
]  # fmt: skip

SPANISH: list[tuple[str, dict[str, State]]] = [
    ("Sin derrame pleural ni neumotórax.", {"Effusion": "absent", "Pneumothorax": "absent"}),
    ("No se observa condensación.", {"Consolidation": "absent"}),
    ("No hay nódulos. Cardiomegalia.", {"Nodule": "absent", "Cardiomegaly": "present"}),
    ("Derrame pleural, no se observan fracturas.", {"Effusion": "present", "Fracture": "absent"}),
    ("Neumotórax no se observa.", {"Pneumothorax": "absent"}),
    ("Posible neumonía.", {"Pneumonia": "uncertain"}),
    ("No se puede descartar un derrame.", {"Effusion": "uncertain"}),
    ("Un derrame no se puede descartar.", {"Effusion": "uncertain"}),
    ("Se descarta neumotórax.", {"Pneumothorax": "absent"}),
    ("Atelectasia frente a infiltrado.", {"Atelectasis": "uncertain", "Infiltration": "uncertain"}),
    ("Silueta cardíaca aumentada de tamaño.", {"Cardiomegaly": "present"}),
    ("Corazón de tamaño normal.", {"Cardiomegaly": "absent"}),
    ("Derrame pericárdico.", {}),
    ("Neumonía resuelta.", {"Pneumonia": "absent"}),
    ("Ningún nódulo.", {"Nodule": "absent"}),
    ("Ni derrame ni edema.", {"Effusion": "absent", "Edema": "absent"}),
    ("Motivo: neumonía. Hallazgos: hernia de hiato. IMPRESIÓN: sin edema.", {"Hernia": "present", "Edema": "absent"}),
    ("CONCLUSIÓN: NEUMONIA, SIN DERRAME", {"Pneumonia": "present", "Effusion": "absent"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "findings"), ENGLISH)
def test_reads_english(text: str, findings: dict[str, State]) -> None:
    assert parse(text, "en") == findings


@pytest.mark.parametrize(("text", "findings"), SPANISH)
def test_reads_spanish(text: str, findings: dict[str, State]) -> None:
    assert parse(text, "es") == findings


def test_reads_findings_that_the_language_lacks_by_their_names() -> None:
    assert parse("No aortic enlargement. Scoliosis.", "en", ["Aortic_Enlargement", "Scoliosis", "Mass"]) == {
        "Aortic_Enlargement": "absent",
        "Scoliosis": "present",
    }


@pytest.mark.parametrize("language", list_languages())
@settings(max_examples=50)
@given(st.text(max_size=300) | st.text("no .,:;\n-*_/X1é", max_size=300))
def test_reads_any_text(language: str, text: str) -> None:
    assert isinstance(parse(text, language, [text, "A.b", ""]), dict)
