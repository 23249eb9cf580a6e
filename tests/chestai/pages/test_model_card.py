"""The model card: sections, numbers, missing measurements, and how a real browser shows it."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from chestai.evaluation.evidence import Latency
from chestai.evaluation.promotion_gate import GateCheck
from chestai.pages.markdown import render_markdown
from chestai.pages.model_card import about, accuracy, behaviour, card, confidence, triage
from chestai.pages.model_card.csv_tables import render_csv_tables
from chestai.pages.page import SYNTHETIC_IMAGES, SYNTHETIC_MODEL, Figure, Page, Section, Table, render_html
from tests.chestai.pages import card_evidence as made
from tests.chestai.pages.html import extract_text
from tests.support.browser import Browser

SECTIONS = "use data ranking points calibration confidence triage queue subgroups localisation robustness latency"
ANCHORS = [*SECTIONS.split(), "missing", "limits", "provenance", "licences"]
UNKNOWN = "SPLIT NOT KNOWN: the model may have been trained on these patients."
FIGURES = {
    "ranking": 1,
    "calibration": 1,
    "confidence": 1,
    "queue": 1,
    "subgroups": 2,
    "localisation": 2,
    "robustness": 1,
}


@pytest.fixture(scope="module")
def page() -> Page:
    return card.build_model_card(made.make_evidence())


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render_html(page)


def extract_section_text(*sections: Section) -> str:
    """The visible text of sections alone."""
    return extract_text(render_html(Page("", "", [], "", sections)))


@pytest.mark.parametrize("make", [made.make_evidence, made.make_bare_evidence])
def test_card_has_every_section_and_none_is_empty(make: Any) -> None:
    page = card.build_model_card(make())
    assert [section.anchor for section in page.sections] == ANCHORS
    assert all(section.parts for section in page.sections)
    for section in page.sections:
        tables = [part for part in section.parts if isinstance(part, Table)]
        assert all(table.rows for table in tables)
        assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    html = render_html(page)
    assert re.findall(r'<a href="#(\w+)"', html) == ANCHORS


def test_sections_have_figures_only_where_values_are_defined(page: Page) -> None:
    found = {section.anchor: sum(isinstance(part, Figure) for part in section.parts) for section in page.sections}
    assert {anchor: count for anchor, count in found.items() if count} == FIGURES
    for evidence in (made.make_bare_evidence(), made.make_undefined_evidence()):
        assert "<img" not in render_html(card.build_model_card(evidence))


def test_card_shows_the_numbers(html: str) -> None:
    text = extract_text(html)
    for phrase in (
        "Macro-AUROC 0.812 [0.801, 0.823]",
        "Images 25,596",
        "Split test Training patients known",
        "Atelectasis 4,000 15.6% 0.710 [0.690, 0.730] 0.400 [0.380, 0.420]",
        "mean of 13 of 14 findings 0.812 [0.801, 0.823]",
        "all findings pooled 0.860 [0.840, 0.880]",
        "champion 0.795 0.812 +0.017 [+0.011, +0.023]",
        "Atelectasis 0.0123 2,100 6,411 16,085 1,000 81.0% [79.0, 83.0] 72.0% [70.0, 74.0]",
        "thresholds were chosen on val and are evaluated on test",
        "Platt * 0.0110 0.0041 0.0512",
        "Atelectasis 11.18% 19.00% 1.70",
        "Atelectasis 6 0.06% to 82% 500 to 3,000 1 7",
        "No bands: Hernia (val has 3 patients with a known label, 10 are needed).",
        "to rule out present at any score: Hernia.",
        "Atelectasis 32% 8.1% 91.3% [89.3, 93.3] 89.7% [87.7, 91.7] 72.0%",
        "Label sets at an error rate of 10 %",
        "AUROC of 0.850 [0.830, 0.870]",
        "urgent or soon 0.500 2,500 3,800 17,700 1,000",
        "soon 1,000 28.6% 3,000 14.0% 25.0%",
        "urgent highest score first 16,800 0.0 9.1 30.0 911.2",
        "50 per hour",
        "a load of 0.94",
        "60-79 4,003 903 0.770 [0.750, 0.790] 31.0% [29.0, 33.0]",
        "age FNR 0-19 60-79 6.0% [4.0, 8.0] 9",
        "groups of fewer than 50 images axis groups (images) age, sex 80+, M (31)",
        "180 (18.3%) of them the finding stays below its operating point",
        "untrained network 15.0% [10.0, 20.0] +46.0 [+40.0, +52.0] 25.0% [20.0, 30.0]",
        "closed form",
        "noise, 2 0.810 0.788 -0.022 [-0.030, -0.014]",
        "densenet121 0.503 0.251",
        "test-time views plain, flip",
        "53162d0a9f7f4c2b8e0e3f1a2b3c4d5e",
        "torch 2.9.0",
        "NIH Clinical Center",
        "Apache-2.0",
        "not for diagnosis",
        "truncated 3",
        "nih: no official split (split.by)",
        "3 of 24 boxes do not fit on their images (sanity.boxes_off_image)",
        "Pleural Thickening",
    ):
        assert phrase in text, phrase
    assert "Pleural_Thickening" not in text


@pytest.mark.parametrize("make", [made.make_evidence, made.make_bare_evidence, made.make_undefined_evidence])
def test_undefined_values_are_dashes(make: Any) -> None:
    evidence = make()
    page = card.build_model_card(evidence)
    for text in (extract_text(render_html(page)), render_markdown(page), *render_csv_tables(evidence).values()):
        assert not re.search(r"\b(nan|inf)\b", text, re.I) and "None" not in text
    assert re.search(r"(Hernia|Mass) 0 0.0% \u2013 \u2013", extract_section_text(accuracy.build_ranking(evidence)))


def test_missing_measurements_give_the_reason_in_their_section_and_in_a_list() -> None:
    bare = made.make_bare_evidence()
    assert "Not measured: no urgent study." in extract_section_text(triage.build_triage(bare))
    assert "Not measured: no reason was recorded." in extract_section_text(behaviour.build_robustness(bare))
    every = extract_section_text(*about.build_missing(bare))
    for phrase in ("Triage no urgent study", "Subgroups no reason was recorded", "fun <script>alert(1)</script>"):
        assert phrase in every
    measured = made.make_evidence(latency=Latency(41.25, 55.0, "2 cores of a test"), missing={})
    assert "41.2 ms (median), 55.0 ms (95th percentile), on 2 cores of a test" in extract_section_text(
        behaviour.build_latency(measured)
    )
    assert not about.build_missing(measured)


@pytest.mark.parametrize(
    ("synthetic", "trained_on_phantoms", "known", "banner"),
    [
        (False, False, True, ""),
        (True, True, True, SYNTHETIC_IMAGES),
        (False, True, True, SYNTHETIC_MODEL),
        (False, False, False, UNKNOWN),
        (True, True, False, f"{SYNTHETIC_IMAGES} {UNKNOWN}"),
    ],
)
def test_banner_warns_of_phantoms_and_unknown_splits(
    synthetic: bool, trained_on_phantoms: bool, known: bool, banner: str
) -> None:
    subject = dataclasses.replace(
        made.make_evidence().subject, card={**made.CARD, "synthetic": trained_on_phantoms}, split_known=known
    )
    evidence = made.make_evidence(subject=subject, data=made.make_data(synthetic=synthetic))
    assert about.build_banner(evidence) == banner
    assert ("Training patients", "known" if known else "not known") in about.build_facts(evidence)


@pytest.mark.parametrize(
    ("source", "synthetic", "named", "absent"),
    [
        ("nih", False, ["NIH Clinical Center", "mined from reports"], ["Phantoms", "owners"]),
        ("phantom", True, ["Phantoms", "Nothing here applies to real patients"], ["Clinical Center", "owners"]),
        ("nih+chexpert", False, ["NIH Clinical Center", "chexpert Subject to the terms of its owners"], ["Phantoms"]),
        (
            "mine",
            False,
            ["mine Subject to the terms of its owners", "labels are those of the source"],
            ["Clinical Center"],
        ),
    ],
)
def test_licences_and_limits_match_the_data_source(
    source: str, synthetic: bool, named: list[str], absent: list[str]
) -> None:
    evidence = made.make_evidence(data=made.make_data(source=source, synthetic=synthetic))
    text = extract_section_text(about.build_licences(evidence), about.build_limits(evidence))
    assert all(phrase in text for phrase in named) and not any(phrase in text for phrase in absent)


def test_results_on_val_are_called_optimistic() -> None:
    evidence = made.make_evidence(data=made.make_data(split="val"))
    assert "by construction" in extract_section_text(confidence.build_confidence(evidence))
    for make in (accuracy.build_operating_points, accuracy.build_calibration):
        assert "optimistic" in extract_section_text(make(evidence))
        assert "optimistic" not in extract_section_text(make(made.make_evidence()))


def test_names_own_calibration_method_that_was_not_measured() -> None:
    assert "temperature, was not measured" in extract_section_text(
        accuracy.build_calibration(made.make_evidence(calibration_method="temperature"))
    )


def test_queue_section_warns_of_overload() -> None:
    report = made.make_queue()
    busy = dataclasses.replace(report, scenario=dataclasses.replace(report.scenario, readers=3))
    assert "keeps growing" in extract_section_text(triage.build_queue(made.make_evidence(queue=busy)))
    assert "keeps growing" not in extract_section_text(triage.build_queue(made.make_evidence()))


def test_card_escapes_user_text_and_loads_nothing(html: str) -> None:
    bare = render_html(card.build_model_card(made.make_bare_evidence()))
    assert f'<p class="banner" role="note">{UNKNOWN}</p>' in bare and 'banner" role' not in html
    assert "preds_&lt;i&gt;.csv" in bare and "3 rows | `of` none" in bare
    assert not re.search("<(i|b|script)>", bare)
    assert r"3 rows \| \`of\` none" in render_markdown(card.build_model_card(made.make_bare_evidence()))
    for page in (html, bare):
        for forbidden in ("http://", "https://", "<script", "<link", "<iframe", "@import", "url("):
            assert forbidden not in page.lower()
    assert html.count("<img ") == len(re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="[^"]+">', html))


def test_same_evidence_gives_the_same_page(html: str) -> None:
    assert render_html(card.build_model_card(made.make_evidence())) == html


def test_markdown_has_every_table_row_and_figure(page: Page) -> None:
    text = render_markdown(page)
    parts = [part for section in page.sections for part in section.parts]
    tables = [part for part in parts if isinstance(part, Table)]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == sum(len(table.rows) + 2 for table in tables) + len(page.facts) + 2
    assert text.count("*Figure: ") == sum(FIGURES.values()) and "data:" not in text
    assert re.findall(r"^## (.*)$", text, re.M) == [section.title for section in page.sections]
    assert "| Atelectasis | 4,000 | 15.6% | 0.710 [0.690, 0.730] | 0.400 [0.380, 0.420] |" in lines


PROBE = """<script>addEventListener("load", () => {
const images = [...document.images], page = document.documentElement;
const cut = [...document.querySelectorAll(".card")].filter(card => card.getBoundingClientRect().right > innerWidth);
const broken = images.filter(image => !image.naturalWidth);
parent.postMessage([page.scrollWidth - innerWidth, cut.length, broken.length, images.length, innerWidth].join(), "*");
})</script>"""
# A window cannot be as narrow as a phone, a frame can.
FRAME = """<script>addEventListener("message", event => { document.body.dataset.result = event.data; })</script>
<body><iframe src="NAME" style="width:390px;height:800px;border:0"></iframe></body>"""


@pytest.mark.parametrize("make", [made.make_evidence, made.make_bare_evidence])
def test_card_fits_a_phone(make: Any, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    html = re.sub("<meta http-equiv[^>]*>", PROBE, render_html(card.build_model_card(make())))
    too_wide = html.replace("</main>", '<div class="card" style="width:700px;max-width:none">x</div></main>')
    found = {}
    for name, text in (("card", html), ("too_wide", too_wide)):
        (tmp_path / f"{name}.html").write_text(text)
        frame = tmp_path / f"{name}_frame.html"
        frame.write_text(FRAME.replace("NAME", f"{name}.html"))
        answer = re.search(r'data-result="([-\d,]+)"', browser.dump_dom(frame))
        assert answer, "the frame did not answer"
        found[name] = [int(number) for number in answer[1].split(",")]
    images = html.count("<img ")
    overflow, cut, *rest = found["card"]
    assert overflow <= 0 and cut == 0 and rest == [0, images, 390]
    assert found["too_wide"][0] > 0 and found["too_wide"][1] == 1, "the probe finds what is too wide"


def test_browser_reports_no_policy_violations(html: str, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    page = tmp_path / "page.html"
    page.write_text(html)
    assert browser.read_console(page) == []
    page.write_text(html.replace("</main>", '<img alt="" src="/x.png"></main>'))
    assert browser.read_console(page), "the policy forbids other addresses"


def test_gate_checks_are_a_section() -> None:
    checks = (
        GateCheck("better", True, "by <0.01>"),
        GateCheck("calibration", False, "ECE 0.2 breaks it"),
        GateCheck("maps", None, "-"),
    )
    html = render_html(card.build_model_card(made.make_evidence(), checks))
    for cell in ("by &lt;0.01&gt;", "passed", "failed", "not judged", "ECE 0.2 breaks it"):
        assert cell in html
    assert 'id="gate"' in html and 'id="gate"' not in render_html(card.build_model_card(made.make_evidence()))
