"""The model card: every section, every number, what is missing, and how it looks to a real browser."""

import dataclasses
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from chestai.evaluation.evidence import Latency
from chestai.evaluation.promotion_gate import GateCheck
from chestai.pages.markdown import render_markdown
from chestai.pages.model_card import about, accuracy, behaviour, card, triage
from chestai.pages.model_card.csv_tables import render_csv_tables
from chestai.pages.page import Figure, Page, Section, Table, render_html
from tests.chestai.pages import card_evidence as made
from tests.support.browser import Browser

SECTIONS = "use data ranking points calibration triage queue subgroups localisation robustness latency missing limits"
ANCHORS = [*SECTIONS.split(), "provenance", "licences"]
PHANTOMS = "SYNTHETIC: computer-drawn phantoms, no X-rays of people."
UNKNOWN = "SPLIT NOT KNOWN: it may have been trained on these patients."
FIGURES = {"ranking": 1, "calibration": 1, "queue": 1, "subgroups": 2, "localisation": 2, "robustness": 1}


@pytest.fixture(scope="module")
def page() -> Page:
    return card.build_model_card(made.make_evidence())


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return render_html(page)


def text_of(html: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", body).split()))


def seen(*sections: Section) -> str:
    """What a reader sees of sections alone."""
    return text_of(render_html(Page("", "", [], "", sections)))


@pytest.mark.parametrize("make", [made.make_evidence, made.make_bare_evidence])
def test_every_section_is_there_and_none_is_empty(make: Any) -> None:
    page = card.build_model_card(make())
    assert [one.anchor for one in page.sections] == ANCHORS
    assert all(one.parts for one in page.sections)
    for one in page.sections:
        tables = [part for part in one.parts if isinstance(part, Table)]
        assert all(table.rows for table in tables)
        assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    html = render_html(page)
    assert re.findall(r'<a href="#(\w+)"', html) == ANCHORS


def test_figures_are_where_numbers_are_and_nowhere_else(page: Page) -> None:
    found = {one.anchor: sum(isinstance(part, Figure) for part in one.parts) for one in page.sections}
    assert {anchor: count for anchor, count in found.items() if count} == FIGURES
    for evidence in (made.make_bare_evidence(), made.make_undefined_evidence()):
        assert "<img" not in render_html(card.build_model_card(evidence))


def test_the_numbers_are_on_the_page(html: str) -> None:
    text = text_of(html)
    for phrase in (
        "Macro-AUROC 0.812 [0.801, 0.823]",
        "Images 25,596",
        "Split test (split known)",
        "Atelectasis 4,000 15.6% 0.710 [0.690, 0.730] 0.400 [0.380, 0.420]",
        "mean of 13 of 14 findings 0.812 [0.801, 0.823]",
        "all pairs in one ranking 0.860 [0.840, 0.880]",
        "champion 0.795 0.812 +0.017 [+0.011, +0.023]",
        "Atelectasis 0.0123 2,100 6,411 16,085 1,000 81.0% [79.0, 83.0] 72.0% [70.0, 74.0]",
        "Thresholds were chosen on val and are judged on test",
        "Platt * 0.0110 0.0041 0.0512",
        "Atelectasis 11.18% 19.00% 1.70",
        "AUROC of 0.850 [0.830, 0.870]",
        "urgent or soon 0.500 2,500 3,800 17,700 1,000",
        "soon 1,000 28.6% 3,000 14.0% 25.0%",
        "urgent highest score 16,800 0.0 9.1 30.0 911.2",
        "50 studies an hour",
        "The load is 0.94",
        "60-79 4,003 903 0.770 [0.750, 0.790] 31.0% [29.0, 33.0]",
        "age FNR 0-19 60-79 6.0% [4.0, 8.0] 9",
        "groups of fewer than 50 images axis groups, with their images age, sex 80+, M (31)",
        "180 (18.3%) stay below their operating point",
        "untrained network 15.0% [10.0, 20.0] +46.0 [+40.0, +52.0] 25.0% [20.0, 30.0]",
        "closed form",
        "noise, 2 0.810 0.788 -0.022 [-0.030, -0.014]",
        "densenet121 0.503 0.251",
        "views at test time plain, flip",
        "53162d0a9f7f4c2b8e0e3f1a2b3c4d5e",
        "torch 2.9.0",
        "NIH Clinical Center",
        "Apache-2.0",
        "not for diagnosis",
        "truncated 3",
        "Pleural Thickening",
    ):
        assert phrase in text, phrase
    assert "Pleural_Thickening" not in text


@pytest.mark.parametrize("make", [made.make_evidence, made.make_bare_evidence, made.make_undefined_evidence])
def test_what_is_undefined_is_a_dash(make: Any) -> None:
    evidence = make()
    page = card.build_model_card(evidence)
    for text in (text_of(render_html(page)), render_markdown(page), *render_csv_tables(evidence).values()):
        assert not re.search(r"\b(nan|inf)\b", text, re.I) and "None" not in text
    assert re.search(r"(Hernia|Mass) 0 0.0% \u2013 \u2013", seen(accuracy.build_ranking(evidence)))


def test_what_was_not_measured_says_why_in_its_section_and_in_one_place() -> None:
    bare = made.make_bare_evidence()
    assert "Not measured: no urgent study." in seen(triage.build_triage(bare))
    assert "Not measured: no reason was recorded." in seen(behaviour.build_robustness(bare))
    every = seen(*about.build_missing(bare))
    for phrase in ("Triage no urgent study", "Subgroups no reason was recorded", "fun <script>alert(1)</script>"):
        assert phrase in every
    measured = made.make_evidence(latency=Latency(41.25, 55.0, "2 cores of a test"), missing={})
    assert "41.2 ms (median), 55.0 ms (95th percentile), on 2 cores of a test" in seen(
        behaviour.build_latency(measured)
    )
    assert not about.build_missing(measured)


@pytest.mark.parametrize(
    ("synthetic", "learnt", "known", "banner"),
    [
        (False, False, True, ""),
        (True, True, True, PHANTOMS),
        (False, True, True, "SYNTHETIC: the model learnt from computer-drawn phantoms, not from X-rays of people."),
        (False, False, False, UNKNOWN),
        (True, True, False, f"{PHANTOMS} {UNKNOWN}"),
    ],
)
def test_the_banner_warns(synthetic: bool, learnt: bool, known: bool, banner: str) -> None:
    subject = dataclasses.replace(
        made.make_evidence().subject, card={**made.CARD, "synthetic": learnt}, split_known=known
    )
    evidence = made.make_evidence(subject=subject, data=made.make_data(synthetic=synthetic))
    assert about.build_banner(evidence) == banner
    assert ("Split", f"test (split {'known' if known else 'not known'})") in about.build_facts(evidence)


@pytest.mark.parametrize(
    ("source", "synthetic", "named", "absent"),
    [
        ("nih", False, ["NIH Clinical Center", "mined from reports"], ["Phantoms", "owners"]),
        ("phantom", True, ["Phantoms", "Nothing here says anything of real patients"], ["Clinical Center", "owners"]),
        ("nih+chexpert", False, ["NIH Clinical Center", "chexpert On the terms of its owners"], ["Phantoms"]),
        ("mine", False, ["mine On the terms of its owners", "labels as the source gives them"], ["Clinical Center"]),
    ],
)
def test_terms_and_limits_are_those_of_the_data(
    source: str, synthetic: bool, named: list[str], absent: list[str]
) -> None:
    evidence = made.make_evidence(data=made.make_data(source=source, synthetic=synthetic))
    text = seen(about.build_licences(evidence), about.build_limits(evidence))
    assert all(phrase in text for phrase in named) and not any(phrase in text for phrase in absent)


def test_numbers_of_val_itself_are_called_optimistic() -> None:
    evidence = made.make_evidence(data=made.make_data(split="val"))
    for make in (accuracy.build_operating_points, accuracy.build_calibration):
        assert "optimistic" in seen(make(evidence)) and "optimistic" not in seen(make(made.make_evidence()))


def test_a_method_in_force_that_was_not_measured_is_named() -> None:
    assert "temperature, was not measured" in seen(
        accuracy.build_calibration(made.make_evidence(in_force="temperature"))
    )


def test_an_overloaded_queue_is_said_to_be_one() -> None:
    report = made.make_queue()
    busy = dataclasses.replace(report, scenario=dataclasses.replace(report.scenario, readers=3))
    assert "only grow" in seen(triage.build_queue(made.make_evidence(queue=busy)))
    assert "only grow" not in seen(triage.build_queue(made.make_evidence()))


def test_text_of_users_is_escaped_and_nothing_is_loaded(html: str) -> None:
    bare = render_html(card.build_model_card(made.make_bare_evidence()))
    assert f'<p class="banner" role="note">{UNKNOWN}</p>' in bare and 'banner" role' not in html
    assert "preds_&lt;i&gt;.csv" in bare and "3 rows | `of` none" in bare
    assert not re.search("<(i|b|script)>", bare)
    assert r"3 rows \| \`of\` none" in render_markdown(card.build_model_card(made.make_bare_evidence()))
    for page in (html, bare):
        for forbidden in ("http://", "https://", "<script", "<link", "<iframe", "@import", "url("):
            assert forbidden not in page.lower()
    assert html.count("<img ") == len(re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="[^"]+">', html))


def test_the_same_evidence_gives_the_same_page(html: str) -> None:
    assert render_html(card.build_model_card(made.make_evidence())) == html


def test_the_markdown_has_every_table_row_and_figure(page: Page) -> None:
    text = render_markdown(page)
    parts = [part for one in page.sections for part in one.parts]
    tables = [part for part in parts if isinstance(part, Table)]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == sum(len(table.rows) + 2 for table in tables) + len(page.facts) + 2
    assert text.count("*Figure: ") == sum(FIGURES.values()) and "data:" not in text
    assert re.findall(r"^## (.*)$", text, re.M) == [one.title for one in page.sections]
    assert "| Atelectasis | 4,000 | 15.6% | 0.710 [0.690, 0.730] | 0.400 [0.380, 0.420] |" in lines


PROBE = """<script>addEventListener("load", () => {
const images = [...document.images], page = document.documentElement;
const cut = [...document.querySelectorAll(".card")].filter(card => card.getBoundingClientRect().right > innerWidth);
const broken = images.filter(one => !one.naturalWidth);
parent.postMessage([page.scrollWidth - innerWidth, cut.length, broken.length, images.length, innerWidth].join(), "*");
})</script>"""
# A window cannot be as narrow as a phone, a frame can.
FRAME = """<script>addEventListener("message", event => { document.body.dataset.seen = event.data; })</script>
<body><iframe src="NAME" style="width:390px;height:800px;border:0"></iframe></body>"""


@pytest.mark.parametrize("make", [made.make_evidence, made.make_bare_evidence])
def test_nothing_is_cut_off_on_a_phone(make: Any, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    html = re.sub("<meta http-equiv[^>]*>", PROBE, render_html(card.build_model_card(make())))
    too_wide = html.replace("</main>", '<div class="card" style="width:700px;max-width:none">x</div></main>')
    found = {}
    for name, text in (("card", html), ("too_wide", too_wide)):
        (tmp_path / f"{name}.html").write_text(text)
        frame = tmp_path / f"{name}_frame.html"
        frame.write_text(FRAME.replace("NAME", f"{name}.html"))
        answer = re.search(r'data-seen="([-\d,]+)"', browser.dom(frame))
        assert answer, "the frame answered"
        found[name] = [int(number) for number in answer[1].split(",")]
    images = html.count("<img ")
    overflow, cut, *rest = found["card"]
    assert overflow <= 0 and cut == 0 and rest == [0, images, 390]
    assert found["too_wide"][0] > 0 and found["too_wide"][1] == 1, "the probe sees what is too wide"


def test_a_browser_has_no_complaints(html: str, tmp_path: Path) -> None:
    browser = Browser.find(tmp_path / "profile")
    page = tmp_path / "page.html"
    page.write_text(html)
    assert browser.console(page) == []
    page.write_text(html.replace("</main>", '<img alt="" src="/x.png"></main>'))
    assert browser.console(page), "the policy holds"


def test_what_the_gate_asked_is_a_section_of_the_card() -> None:
    checks = (
        GateCheck("better", True, "by <0.01>"),
        GateCheck("calibration", False, "ECE 0.2 breaks it"),
        GateCheck("maps", None, "-"),
    )
    told = render_html(card.build_model_card(made.make_evidence(), checks))
    for cell in ("by &lt;0.01&gt;", "passed", "refused", "not judged", "ECE 0.2 breaks it"):
        assert cell in told
    assert 'id="gate"' in told and 'id="gate"' not in render_html(card.build_model_card(made.make_evidence()))
