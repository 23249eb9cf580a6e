"""What the model card says of looks at test, of initial weights and teachers, and of other labels."""

import dataclasses

from chestai.evaluation.evidence import Openings
from chestai.evaluation.second_labels import SecondLabelRow, SecondLabels
from chestai.metrics.report import FindingReport
from chestai.pages.model_card import about, card, labels
from chestai.pages.model_card.csv_tables import render_csv_tables
from chestai.pages.page import Page, Section, render_html
from tests.chestai.pages import card_evidence as made
from tests.chestai.pages.html import extract_text

UNKNOWN = "SPLIT NOT KNOWN: the model may have been trained on these patients."


def extract_section_text(section: Section) -> str:
    return extract_text(render_html(Page("", "", [], "", [section])))


def test_card_counts_looks_at_test_and_warns_of_selection() -> None:
    subject = made.make_evidence().subject

    def text(*counts: int) -> str:
        evidence = made.make_evidence(subject=dataclasses.replace(subject, openings=Openings(*counts)))
        return extract_text(render_html(card.build_model_card(evidence)))

    once, often = text(1, 1, 1), text(2, 5, 3)
    assert "test was opened once, and this lake's test once for 1 models" in once and "selects on test" not in once
    assert "test was opened 2 times, and this lake's test 5 times for 3 models" in often and "selects on test" in often
    assert "Test opened" not in extract_text(render_html(card.build_model_card(made.make_evidence())))


def test_card_names_initial_weights_teacher_and_warns_where_corpora_meet() -> None:
    subject = made.make_evidence().subject
    record = {"weights": "rad.safetensors", "sha256": "0a" * 8, "corpora": ["padchest", "rsna"]}
    teacher = {"teacher": "3+5", "temperature": 2.0, "share": 0.7}
    provenance = {**made.CARD["provenance"], "pretraining": [record], "teacher": teacher}
    shown = dataclasses.replace(subject, card={**made.CARD, "provenance": provenance}, split_known=False)
    evidence = made.make_evidence(subject=shown)
    banner = about.build_banner(evidence)
    assert banner.startswith("PRETRAINED ON rsna: the initial weights (rad.safetensors) may") and UNKNOWN not in banner
    text = extract_section_text(about.build_provenance(evidence))
    assert "rad.safetensors" in text and "padchest, rsna" in text and "0a0a" in text
    assert "version 3+5, with a share of 0.7 at temperature 2.0" in text
    elsewhere = dataclasses.replace(evidence, data=dataclasses.replace(evidence.data, source="vindr"))
    assert about.build_banner(elsewhere) == UNKNOWN


def test_other_labels_are_a_section() -> None:
    report = FindingReport("Mass", 30, 70, made.make_estimate(0.7), made.make_estimate(0.3))
    by_mined = FindingReport("Mass", 40, 60, made.make_estimate(0.8), made.make_estimate(0.4))
    row = SecondLabelRow("Mass", 100, report, by_mined, made.make_estimate(0.9))
    second = SecondLabels("nih-experts", 120, 80, (row,), ("Fracture",))
    (section,) = labels.build_second_labels(made.make_evidence(second_labels=second))
    text = extract_section_text(section)
    for words in (
        "120 of these images",
        "nih-experts",
        "0.700 [0.680, 0.720]",
        "0.800",
        "90.0%",
        "compares with: Fracture",
    ):
        assert words in text
    csv = render_csv_tables(made.make_evidence(second_labels=second))["second_labels.csv"]
    assert csv.splitlines()[1].startswith("Mass,nih-experts,100,30,40,0.7,")
    assert labels.build_second_labels(made.make_evidence()) == []
